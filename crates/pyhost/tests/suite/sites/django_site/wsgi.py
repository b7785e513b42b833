"""What a server is pointed at: `sites.django_site.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sites.django_site.settings")
application = get_wsgi_application()
