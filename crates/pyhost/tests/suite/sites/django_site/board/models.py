"""What the board keeps."""

from django.db import models


class Message(models.Model):
    author = models.CharField(max_length=40)
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return f"{self.author}: {self.text[:30]}"


class Attachment(models.Model):
    file = models.FileField(upload_to="attachments")
    sha256 = models.CharField(max_length=64)
