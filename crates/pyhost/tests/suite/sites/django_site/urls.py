"""Addresses of the site."""

from django.contrib import admin
from django.urls import path

from sites.django_site.board import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.index, name="index"),
    path("messages/<int:number>/", views.message, name="message"),
    path("upload/", views.upload, name="upload"),
    path("export/", views.export, name="export"),
    path("file/", views.file, name="file"),
    path("broken/", views.broken, name="broken"),
]
