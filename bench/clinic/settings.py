"""Django's settings. `CLINIC_PROBLEMS` names the planted problems; without any all is well."""

from __future__ import annotations

import os

PLANTED = os.environ.get("CLINIC_PROBLEMS", "").split(",")
REDIS = f"redis://127.0.0.1:{os.environ.get('CLINIC_REDIS_PORT', '')}"
SECRET_KEY = "planted"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "bench.clinic.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = ["bench.clinic"]
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": os.environ.get("CLINIC_DATABASE_PORT", ""),
        "CONN_MAX_AGE": 0 if "connection_per_request" in PLANTED else 600,
    }
}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{REDIS}/1"}
}
_CALENDAR = """
<table>{% for week in weeks %}<tr>{% for day in week %}
<td class="{% cycle 'odd' 'even' %}">{% for slot in day.slots %}
<a href="/book?slot={{ slot.id }}" title="{{ slot.doctor|title }}">{{ slot.hour|floatformat:2 }}
{% if slot.free %}{{ slot.room|upper }}{% else %}
<b>{{ slot.patient|truncatechars:12 }}</b>{% endif %}
</a>{% endfor %}</td>{% endfor %}</tr>{% endfor %}</table>
"""
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [("django.template.loaders.locmem.Loader", {"calendar.html": _CALENDAR})],
                )
            ]
        },
    }
]
