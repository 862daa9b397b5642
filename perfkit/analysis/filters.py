"""The filters that every command shares: which requests, and which time, an analysis looks at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Filters:
    """A population of requests. Absent values do not restrict.

    `endpoint` matches with its method (`POST /tools`) or by path alone (`/tools`). Times are Unix
    ns; `since_ns` is inclusive and `until_ns` exclusive, on the start of the request.
    """

    service: str | None = None
    endpoint: str | None = None
    tool: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    min_duration_ns: int | None = None
    status: str | None = None
    where: str | None = None

    @property
    def by_request(self) -> bool:
        """Whether any filter other than time is set."""
        return any(
            value is not None
            for value in (
                self.service,
                self.endpoint,
                self.tool,
                self.min_duration_ns,
                self.status,
                self.where,
            )
        )
