"""The helpdesk's pages, healthy and with what is planted."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
import requests
from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from bench.helpdesk.models import Message, Tag, Ticket

PLANTED = settings.PLANTED
UPSTREAM = os.environ["HELPDESK_UPSTREAM"]

store = redis.Redis(port=int(os.environ["HELPDESK_REDIS_PORT"]))
session = requests.Session()
session.mount(UPSTREAM, HTTPAdapter(pool_maxsize=32))
patient = requests.Session()
attempts = Retry(4, status_forcelist=[503], raise_on_status=False) if "retries" in PLANTED else 0
patient.mount(UPSTREAM, HTTPAdapter(pool_maxsize=32, max_retries=attempts))
threads = ThreadPoolExecutor(16)
log = logging.getLogger("helpdesk")
carrier_lock = threading.Lock()
kept: list[bytes] = []
secret = make_password("secret") if "password" in PLANTED else ""


def tickets(request: HttpRequest) -> HttpResponse:
    """List some tickets and who asks."""
    found = Ticket.objects.filter(id__gte=int(request.GET["first"])).order_by("id")
    if "lazy_customers" not in PLANTED:
        found = found.select_related("customer")
    return render(request, "tickets.html", {"tickets": found[:40]})


def messages(request: HttpRequest) -> HttpResponse:
    """Count the words about a ticket."""
    found = Message.objects.filter(ticket_id=int(request.GET["ticket"]))
    return JsonResponse(found.aggregate(words=Sum("words")))


def subject(request: HttpRequest) -> HttpResponse:
    """Say what a ticket is about."""
    return JsonResponse({"subject": Ticket.objects.get(id=int(request.GET["ticket"])).subject})


def carrier(request: HttpRequest) -> HttpResponse:
    """Ask who carries a parcel."""
    caller = requests if "client_per_call" in PLANTED else session
    return JsonResponse(caller.get(f"{UPSTREAM}/carriers/{request.GET['parcel']}").json())


def _backlog() -> bytes:
    newest = Message.objects.filter(id__gt=600_000).values("ticket_id")
    busiest = newest.annotate(sum=Sum("words")).order_by("-sum")[:5]
    return json.dumps(list(busiest)).encode()


def dashboard(request: HttpRequest) -> HttpResponse:
    """Show which tickets have the most words; kept for a second."""
    if (answer := store.get("dashboard")) is None:
        # One computes, the others show what was last there.
        if "stampede" in PLANTED or store.set("dashboard-busy", 1, nx=True, px=5000):
            answer = _backlog()
            store.set("dashboard", answer, px=1000)
            store.set("dashboard-last", answer)
            store.delete("dashboard-busy")
        else:
            answer = store.get("dashboard-last") or b"[]"
    return HttpResponse(answer, content_type="application/json")


def quote(request: HttpRequest) -> HttpResponse:
    """Ask three repair shops."""
    addresses = [f"{UPSTREAM}/{shop}/quote" for shop in ("north", "south", "east")]
    if "serial" in PLANTED:
        answers = [session.get(address) for address in addresses]
    else:
        asked = [
            threads.submit(contextvars.copy_context().run, session.get, address)
            for address in addresses
        ]
        answers = [one.result() for one in asked]
    return JsonResponse({"quotes": [one.json()["value"] for one in answers]})


def parcel(request: HttpRequest) -> HttpResponse:
    """Ask where a parcel is."""
    address = f"{UPSTREAM}/parcels/{request.GET['parcel']}"
    if "lock" in PLANTED:
        with carrier_lock:
            answer = session.get(address)
    else:
        answer = session.get(address)
    return JsonResponse(answer.json())


def shipping(request: HttpRequest) -> HttpResponse:
    """Ask what shipping costs."""
    answer = patient.get(f"{UPSTREAM}/shipping/{request.GET['parcel']}")
    return JsonResponse(answer.json(), status=200)


def tag(request: HttpRequest) -> HttpResponse:
    """File a ticket under some tags."""
    tags = [Tag(ticket_id=int(request.GET["ticket"]), label=f"tag {i}") for i in range(50)]
    if "row_writes" in PLANTED:
        for one in tags:
            one.save()
    else:
        Tag.objects.bulk_create(tags)
    return JsonResponse({"tags": len(tags)})


def transcript(request: HttpRequest) -> HttpResponse:
    """Number the lines of a transcript."""
    length = 0
    for number in range(3000):
        log.debug("line %d of ticket %s, %d bytes so far", number, request.GET["ticket"], length)
        length += number
    return JsonResponse({"length": length})


SUBJECTS = [f"The {word} is broken, case {i}" for i, word in enumerate(["bike", "lamp"] * 240)]


def search(request: HttpRequest) -> HttpResponse:
    """Find the subjects with a word."""
    word, visit = request.GET["word"], request.GET["visit"]
    if "regex" in PLANTED:
        # More patterns than the module keeps compiled: no two visits have the same.
        found = [
            one for one in SUBJECTS if re.search(rf"(?i)\b{word}s?\b.*({one[-3:]}|{visit})$", one)
        ]
    else:
        found = [one for one in SUBJECTS if word in one]
    return JsonResponse({"subjects": found})


def export(request: HttpRequest) -> HttpResponse:
    """Export the newest messages."""
    rows = Message.objects.order_by("-id").values("id", "ticket_id", "words", "body")
    return JsonResponse(list(rows[: 20_000 if "export" in PLANTED else 30]), safe=False)


def attachment(request: HttpRequest) -> HttpResponse:
    """Take an attachment."""
    received = os.urandom(2_000_000)
    if "leak" in PLANTED:
        kept.append(received)
    return JsonResponse({"bytes": len(received)})


def flags(request: HttpRequest) -> HttpResponse:
    """Read the switches of a customer."""
    keys = [f"flag:{request.GET['customer']}:{i}" for i in range(60)]
    found = [store.get(key) for key in keys] if "redis_loop" in PLANTED else store.mget(keys)
    return JsonResponse({"on": sum(one is not None for one in found)})


def profile(request: HttpRequest) -> HttpResponse:
    """Show a profile to who has the password."""
    known = check_password("secret", secret) if "password" in PLANTED else True
    return JsonResponse({"known": known})


def price(request: HttpRequest) -> HttpResponse:
    """Convert a price; the rate changes once a day."""
    rate: Any = None if "repeated" in PLANTED else store.get("rate")
    if rate is None:
        rate = session.get(f"{UPSTREAM}/rates/EUR").json()["value"]
        store.set("rate", rate, ex=3600)
    return JsonResponse({"price": 20 * float(rate)})


def ready(request: HttpRequest) -> HttpResponse:
    """Say that it serves."""
    return HttpResponse("ready")


urlpatterns = [
    path(page.__name__, page)
    for page in (
        *(tickets, messages, subject, carrier, dashboard, quote, parcel, shipping, tag),
        *(transcript, search, export, attachment, flags, profile, price, ready),
    )
]
