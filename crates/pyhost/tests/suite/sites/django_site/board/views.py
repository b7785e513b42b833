"""Pages of the board."""

import hashlib

from django import forms
from django.db import transaction
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from sites.django_site.board.models import Attachment, Message


class MessageForm(forms.ModelForm):
    class Meta:
        model = Message
        fields = ["author", "text"]


class UploadForm(forms.Form):
    file = forms.FileField()


def index(request):
    form = MessageForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            saved = form.save()
        return redirect("message", number=saved.pk)
    return render(request, "board/index.html", {"form": form, "messages_here": Message.objects.all()})


def message(request, number):
    found = get_object_or_404(Message, pk=number)
    return HttpResponse(f"{found.author}: {found.text}", content_type="text/plain; charset=utf-8")


def upload(request):
    form = UploadForm(request.POST, request.FILES) if request.method == "POST" else UploadForm()
    if form.is_bound and form.is_valid():
        file, hashed = form.cleaned_data["file"], hashlib.sha256()
        for piece in file.chunks():
            hashed.update(piece)
        kept = Attachment.objects.create(file=file, sha256=hashed.hexdigest())
        return JsonResponse({"size": file.size, "sha256": kept.sha256, "kind": type(file).__name__})
    return render(request, "board/index.html", {"form": form, "messages_here": []}, status=400 if form.is_bound else 200)


def export(request):
    """Streams every message: the rows are read while the response is sent."""

    def rows():
        for found in Message.objects.iterator(chunk_size=50):
            yield f"{found.pk};{found.author}\n"

    return StreamingHttpResponse(rows(), content_type="text/csv")


def file(request):
    latest = Attachment.objects.latest("pk")
    return FileResponse(latest.file.open("rb"), as_attachment=True, filename="attachment.bin")


def broken(request):
    raise RuntimeError("broken on purpose")
