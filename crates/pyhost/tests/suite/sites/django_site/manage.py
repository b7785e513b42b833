"""`python -m sites.django_site.manage COMMAND`; `prepare` makes the tables and the administrator."""

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sites.django_site.settings")


def prepare():
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from sites.django_site.board.models import Message

    call_command("migrate", verbosity=0)
    if not get_user_model().objects.filter(username="admin").exists():
        get_user_model().objects.create_superuser("admin", "admin@example.test", "correct horse")
    Message.objects.all().delete()


if __name__ == "__main__":
    if sys.argv[1:] == ["prepare"]:
        prepare()
    else:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
