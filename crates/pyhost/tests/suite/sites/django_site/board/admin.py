"""The board in the admin."""

from django.contrib import admin

from sites.django_site.board.models import Message


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ["author", "text", "created"]
    search_fields = ["text"]
