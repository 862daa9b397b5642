"""What Celery runs: the tasks, with Django set up before them."""

import django

django.setup()

from bench.clinic.tasks import app  # noqa: E402

__all__ = ["app"]
