"""Posting, again and again if need be, without telling a secret."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from perfkit.errors import PerfkitError

TIMEOUT_S = 10.0
PAUSES_S = (1.0, 3.0, 9.0)
"""Between the tries: four of them, and then it waits for the next run."""
_AGAIN = frozenset({408, 425, 429})
_MOST_ANSWER = 200


class Undelivered(PerfkitError):
    """A target did not take what it was sent."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry what is sent, and its token, to somebody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    who: str,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Post a body; tries again after a failure that may pass. Raises Undelivered.

    `who` is what the target is called in messages: a URL may hold a secret.
    """
    request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310
    opener = urllib.request.build_opener(_NoRedirects)
    for pause_s in (*PAUSES_S, None):
        try:
            # It has taken it, whatever becomes of the rest of its answer.
            opener.open(request, timeout=TIMEOUT_S).close()
            return
        except urllib.error.HTTPError as error:
            problem = f"answered {error.code}{_said(error)}"
            again = error.code >= 500 or error.code in _AGAIN
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            slow = isinstance(reason, TimeoutError)
            problem = (
                f"did not answer in {TIMEOUT_S:g} s" if slow else f"cannot be reached: {reason}"
            )
            again = True
        if not again or pause_s is None:
            raise Undelivered(f"{who} {problem}")
        sleep(pause_s)


def _said(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(_MOST_ANSWER).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    return f": {text}" if text else ""
