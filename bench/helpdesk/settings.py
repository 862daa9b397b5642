"""Django's settings. `HELPDESK_PROBLEMS` names the planted problems; without any all is well."""

from __future__ import annotations

import os

PLANTED = os.environ.get("HELPDESK_PROBLEMS", "").split(",")
SECRET_KEY = "planted"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "bench.helpdesk.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": os.environ.get("HELPDESK_DATABASE_PORT", ""),
        "CONN_MAX_AGE": 0 if "connection_per_request" in PLANTED else 60,
    }
}
_TICKETS = """
<ul>{% for ticket in tickets %}<li>{{ ticket.subject }}: {{ ticket.customer.name }}</li>{% endfor %}
</ul>
"""
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [("django.template.loaders.locmem.Loader", {"tickets.html": _TICKETS})],
                )
            ]
        },
    }
]
LOGGING = {
    "version": 1,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "file": {
            "class": "logging.FileHandler",
            "filename": os.environ.get("HELPDESK_LOG", os.devnull),
            "formatter": "plain",
        }
    },
    "loggers": {
        "helpdesk": {
            "handlers": ["file"],
            "level": "DEBUG" if "logging" in PLANTED else "WARNING",
        }
    },
}
