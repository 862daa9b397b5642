"""Whom alerts go to: an Alertmanager, a webhook, or whatever Apprise knows."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from perfkit.alert.event import Event
from perfkit.alert.http import Undelivered, post
from perfkit.errors import UsageError

_ALERTMANAGER = {"alertmanager": "http", "alertmanagers": "https"}
_WEB = ("http", "https")
_ENV = "env:"
_TOKEN = "PERFKIT_WEBHOOK_TOKEN"  # noqa: S105 - the name of a variable
_SOURCE = "perfkit"
_EXPIRES_NS = 3600 * 10**9
"""An Alertmanager takes an alert that is not repeated for so long for resolved."""


class Target(Protocol):
    """Somebody to tell."""

    name: str
    """As people and the state see it: without secrets, and the same from run to run."""
    repeats: bool
    """Whether it wants to hear again what goes on."""

    def send(self, events: Sequence[Event], now_ns: int) -> None:
        """Tell it. Raises Undelivered; then nothing, or only a part, was taken."""
        ...


def parse(text: str, template: str | None, env: Mapping[str, str] = os.environ) -> Target:
    """Read `alertmanager://HOST:PORT`, `https://…`, or `env:NAME`. Raises UsageError.

    A URL that holds a secret must come from the environment, where no list of processes shows it.
    """
    secret = text.startswith(_ENV)
    url = env.get(text.removeprefix(_ENV), "") if secret else text
    if not url:
        raise UsageError(f"the environment has no {text.removeprefix(_ENV)}", hint="export it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--to {text}: not a URL") from error
    del port
    scheme = _ALERTMANAGER.get(parts.scheme, parts.scheme)
    known = scheme in _WEB
    if not secret and (not known or parts.username or parts.password or parts.query):
        raise UsageError(
            "a URL with a secret in it is not for the command line"
            if known or parts.scheme
            else f"--to {text}: not a URL",
            hint="export it, and write --to env:NAME; or alertmanager://HOST:9093, https://HOST/…",
        )
    name = f"${text.removeprefix(_ENV)}" if secret else text
    if known:
        if not parts.hostname:
            raise UsageError(f"--to {name}: no host in it")
        base, headers = _without_login(parts, scheme)
        if parts.scheme in _ALERTMANAGER:
            return Alertmanager(name, base, headers)
        if token := env.get(_TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        return Webhook(name, base, headers, _template(template))
    return Apprise(name, url)


def _without_login(parts: SplitResult, scheme: str) -> tuple[str, dict[str, str]]:
    """Return the URL, and the header that says what its user and password said."""
    headers = {"Content-Type": "application/json", "User-Agent": _SOURCE}
    host = parts.netloc.rpartition("@")[2]
    if parts.username or parts.password:
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return parts._replace(scheme=scheme, netloc=host, fragment="").geturl(), headers


@dataclass
class Alertmanager:
    """Prometheus Alertmanager, by its API v2."""

    name: str
    url: str
    headers: dict[str, str]
    repeats: bool = True
    sleep: Callable[[float], None] = time.sleep

    def send(self, events: Sequence[Event], now_ns: int) -> None:
        """Post alerts; one that goes on ends, for it, an hour after it was last told."""
        body = [
            {
                "labels": {
                    **{_label(name): value for name, value in one.alert.labels.items() if value},
                    "alertname": one.alert.name,
                    "severity": one.alert.severity,
                    "fingerprint": one.alert.fingerprint,
                    "source": _SOURCE,
                },
                "annotations": {
                    "summary": one.alert.summary,
                    "description": one.alert.description,
                },
                # It refuses one that ends before it begins, as clocks of two machines may say.
                "startsAt": _rfc3339(min(one.alert.starts_ns, one.ends_ns or now_ns)),
                "endsAt": _rfc3339(one.ends_ns or now_ns + _EXPIRES_NS),
            }
            for one in events
        ]
        url = f"{self.url.rstrip('/')}/api/v2/alerts"
        post(url, json.dumps(body).encode(), self.headers, self.name, self.sleep)


def _label(name: str) -> str:
    """Return a name that Prometheus takes for that of a label."""
    safe = "".join(char if char.isascii() and char.isalnum() else "_" for char in name)
    return f"_{safe}" if safe[:1].isdigit() or not safe else safe


@dataclass
class Webhook:
    """Any service that takes JSON."""

    name: str
    url: str
    headers: dict[str, str]
    template: string.Template | None = None
    repeats: bool = False
    sleep: Callable[[float], None] = time.sleep

    def send(self, events: Sequence[Event], now_ns: int) -> None:
        """Post all alerts in one document, or one document an alert when there is a template."""
        documents = [_fields(event) for event in events]
        if self.template is None:
            whole = {"version": 1, "alerts": documents}
            bodies = [json.dumps(whole, ensure_ascii=False)]
        else:
            bodies = [self.template.substitute(_quoted(one)) for one in documents]
        for body in bodies:
            post(self.url, body.encode("utf-8", "replace"), self.headers, self.name, self.sleep)


def _fields(event: Event) -> dict[str, Any]:
    return {
        **asdict(event.alert),
        "status": "firing" if event.ends_ns is None else "resolved",
        "starts_at": _rfc3339(event.alert.starts_ns),
        "ends_at": None if event.ends_ns is None else _rfc3339(event.ends_ns),
    }


def _quoted(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return values as they stand between the quotes of a JSON text."""
    return {
        name: json.dumps(value if isinstance(value, str) else json.dumps(value))[1:-1]
        for name, value in fields.items()
    }


FIELDS = (
    *("fingerprint", "name", "severity", "summary", "description", "status"),
    *("starts_at", "ends_at", "starts_ns", "labels"),
)


def _template(text: str | None) -> string.Template | None:
    if text is None:
        return None
    template = string.Template(text)
    unknown = set(template.get_identifiers()) - set(FIELDS) if template.is_valid() else {"$"}
    if unknown:
        raise UsageError(
            f"the template has a place that is not known: {', '.join(sorted(unknown))}",
            hint=f"known: {', '.join(f'${name}' for name in FIELDS)}; a dollar sign is $$",
        )
    return template


@dataclass
class Apprise:
    """Slack, PagerDuty, e-mail and what else Apprise knows; its URLs hold secrets."""

    name: str
    url: str
    repeats: bool = False

    def send(self, events: Sequence[Event], now_ns: int) -> None:
        """Send one message for each alert."""
        try:
            import apprise
        except ImportError as error:
            raise UsageError(
                f"{self.name} needs Apprise, which is not installed",
                hint="pip install 'perfkit[notify]'",
            ) from error
        known = apprise.Apprise()
        if not known.add(self.url):
            raise UsageError(f"{self.name} holds no URL that Apprise understands")
        for event in events:
            over = event.ends_ns is not None
            state = "Resolved" if over else event.alert.severity.upper()
            if not known.notify(
                title=f"{state}: {event.alert.summary}",
                body=event.alert.description,
                notify_type="success" if over else "warning",
            ):
                raise Undelivered(f"{self.name} did not take a message")


def _rfc3339(time_ns: int) -> str:
    moment = dt.datetime.fromtimestamp(time_ns // 10**9, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9 // 10**6:03d}Z"
