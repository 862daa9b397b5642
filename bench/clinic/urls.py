"""The clinic's pages, healthy and with what is planted."""

from __future__ import annotations

import hashlib
import statistics as numbers
from typing import Any

import requests
from django.conf import settings
from django.core.cache import cache
from django.db import connection, transaction
from django.db.models import Avg, Count, Max
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import path
from requests.adapters import HTTPAdapter

from bench.clinic import tasks
from bench.clinic.models import Doctor, Medicine, Patient, Result, Visit

PLANTED = settings.PLANTED
UPSTREAM = tasks.UPSTREAM

session = requests.Session()
session.mount(UPSTREAM, HTTPAdapter(pool_maxsize=32))


def agenda(request: HttpRequest) -> JsonResponse:
    """List some visits, who comes and to whom."""
    found = Visit.objects.filter(id__gte=int(request.GET["first"])).order_by("id")
    if "lazy_keys" not in PLANTED:
        found = found.select_related("doctor", "patient")
    return JsonResponse({one.id: f"{one.patient.name}, {one.doctor.name}" for one in found[:30]})


class PatientSerializer:
    """What is told of a patient."""

    def data(self, patient: Any) -> dict[str, Any]:
        """Return one patient's fields."""
        return {"name": patient.name, "visits": self.get_visits(patient)}

    def get_visits(self, patient: Any) -> int:
        """Return how often a patient came."""
        return patient.visits.count() if "method_field" in PLANTED else patient.visit_count


def patients(request: HttpRequest) -> JsonResponse:
    """List some patients."""
    found = Patient.objects.filter(id__gte=int(request.GET["first"])).order_by("id")
    if "method_field" not in PLANTED:
        found = found.annotate(visit_count=Count("visits"))
    serializer = PatientSerializer()
    return JsonResponse({"patients": [serializer.data(one) for one in found[:30]]})


def results(request: HttpRequest) -> JsonResponse:
    """Show what the laboratory found in a sample."""
    found = Result.objects.filter(sample=request.GET["sample"]).values("kind", "value")
    return JsonResponse({"results": list(found)})


def cupboard(request: HttpRequest) -> JsonResponse:
    """Show how much is on a shelf."""
    found = Medicine.objects.filter(shelf=int(request.GET["shelf"]), left_over__gt=5)
    if "counted_again" in PLANTED:
        answer = {
            "any": found.count() > 0,
            "pages": found.count() // 20 + 1,
            "many": found.count() > 1000,
            "total": found.count(),
        }
    else:
        total = found.count()
        answer = {
            "any": total > 0,
            "pages": total // 20 + 1,
            "many": total > 1000,
            "total": total,
        }
    return JsonResponse(answer)


def statistics(request: HttpRequest) -> JsonResponse:
    """Say what is usual for a kind of result."""
    found = Result.objects.filter(kind=int(request.GET["kind"]))
    if "whole_objects" in PLANTED:
        return JsonResponse({"mean": numbers.fmean(one.value for one in found)})
    return JsonResponse(found.aggregate(mean=Avg("value")))


def _weeks(first: int) -> list[list[dict[str, Any]]]:
    def slot(week: int, day: int, hour: int) -> dict[str, Any]:
        number = first + 1000 * week + 100 * day + hour
        return {
            "id": number,
            "hour": 8 + hour / 4,
            "doctor": f"doctor {number % 40}",
            "room": f"room {number % 7}",
            "free": number % 3,
            "patient": f"patient with a long name {number}",
        }

    return [
        [{"slots": [slot(week, day, hour) for hour in range(12)]} for day in range(5)]
        for week in range(8)
    ]


def calendar(request: HttpRequest) -> HttpResponse:
    """Show the next weeks, which change once a night."""
    first = int(request.GET["first"])
    if "rendered_anew" in PLANTED:
        return render(request, "calendar.html", {"weeks": _weeks(first)})
    return HttpResponse(
        cache.get_or_set(
            f"calendar-{first}",
            lambda: render_to_string("calendar.html", {"weeks": _weeks(first)}),
            3600,
        )
    )


def tariff(request: HttpRequest) -> JsonResponse:
    """Say what a treatment costs; the tariffs change once a year."""
    tariffs = None if "never_kept" in PLANTED else cache.get("tariffs")
    if tariffs is None:
        tariffs = session.get(f"{UPSTREAM}/rates/tariffs").json()["value"]
        cache.set("tariffs", tariffs, 3600)
    return JsonResponse({"price": float(tariffs) * int(request.GET["treatment"])})


def doctor(request: HttpRequest) -> JsonResponse:
    """Say who a doctor is."""
    return JsonResponse({"name": Doctor.objects.get(id=int(request.GET["doctor"])).name})


def insurance(request: HttpRequest) -> JsonResponse:
    """Ask whether somebody is insured."""
    answer = session.get(f"{UPSTREAM}/insurer/{request.GET['patient']}")
    return JsonResponse({"insured": answer.json()["value"] > 0})


def book(request: HttpRequest) -> JsonResponse:
    """Give a patient the doctor's next slot, which the health office is told."""
    held = "locked_row" in PLANTED
    address = f"{UPSTREAM}/parcels/{request.GET['patient']}"
    with transaction.atomic():
        one = Doctor.objects.select_for_update().get(id=int(request.GET["doctor"]))
        one.next_slot += 1
        if held:
            session.get(address)
        one.save(update_fields=["next_slot"])
    if not held:
        session.get(address)
    return JsonResponse({"slot": one.next_slot})


def report(request: HttpRequest) -> JsonResponse:
    """Have a report written."""
    tasks.write_report.delay(int(request.GET["patient"]))
    return JsonResponse({"accepted": True}, status=202)


def referral(request: HttpRequest) -> JsonResponse:
    """Have a hospital found."""
    job = tasks.refer.delay(int(request.GET["patient"]))
    if "waits_for_task" in PLANTED:
        return JsonResponse({"hospital": job.get(timeout=20)})
    return JsonResponse({"job": job.id}, status=202)


def reminder(request: HttpRequest) -> JsonResponse:
    """Have somebody reminded."""
    tasks.remind.delay(int(request.GET["patient"]))
    return JsonResponse({"accepted": True}, status=202)


def consents(request: HttpRequest) -> JsonResponse:
    """Say what a patient has agreed to."""
    keys = [f"consent-{request.GET['patient']}-{number}" for number in range(60)]
    if "key_by_key" in PLANTED:
        found = [cache.get(key) for key in keys]
    else:
        found = list(cache.get_many(keys).values())
    return JsonResponse({"agreed": sum(one is not None for one in found)})


def portal(request: HttpRequest) -> JsonResponse:
    """Let somebody in who has the token."""
    token = request.GET["token"].encode()
    if "slow_hash" in PLANTED:
        found = hashlib.pbkdf2_hmac("sha256", token, b"clinic", 150_000)
    else:
        found = hashlib.sha256(token).digest()
    return JsonResponse({"known": found[0] > 3})


def busiest(request: HttpRequest) -> JsonResponse:
    """Say who came most of the newest."""
    newest = Visit.objects.filter(id__gt=int(request.GET["after"]), id__lt=90_000)
    return JsonResponse(newest.aggregate(last=Max("id"), visits=Count("patient", distinct=True)))


def ready(request: HttpRequest) -> HttpResponse:
    """Say that it serves, with its database and its workers."""
    connection.ensure_connection()
    while not tasks.app.control.ping(timeout=0.5):
        pass
    return HttpResponse("ready")


urlpatterns = [
    path(page.__name__, page)
    for page in (
        *(agenda, patients, results, cupboard, statistics, calendar, tariff, doctor, insurance),
        *(book, report, referral, reminder, consents, portal, busiest, ready),
    )
]
