"""What results of load tests share: a measured request as a span of the client that made it."""

from __future__ import annotations

from perfkit import ids
from perfkit.importers.rows import SpanRows, from_process
from perfkit.semconv import Value


def add(
    rows: SpanRows,
    tool: str,
    unique: str,
    label: str,
    start_ns: int | None,
    duration_ns: int | None,
    *,
    method: str | None = None,
    url: str | None = None,
    status: int | None = None,
    failed: bool = False,
    message: str | None = None,
    attributes: dict[str, Value] | None = None,
) -> None:
    """Add one request. The route is the label: load tests name requests for grouping."""
    described: dict[str, Value] = {
        **(attributes or {}),
        "http.request.method": method or None,
        "http.route": label or None,
        "url.full": url or None,
        "http.response.status_code": status,
    }
    # All that is said of it: files of several generators have one name, and as many lines.
    unique = " ".join(map(str, (unique, *described.values())))
    trace, span_id = ids.trace_id_from_text(f"t {unique}"), ids.span_id_from_text(f"s {unique}")
    # Seen from outside, but it is the whole request: without its server's spans it stands for it.
    rows.add(trace, span_id, None, f"{method or ''} {label}".strip() or "request", start_ns,
             duration_ns, from_process(tool), described, kind="server",
             status="error" if failed else "unset", message=message)  # fmt: skip
