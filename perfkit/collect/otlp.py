"""The OTLP receiver: one intake, served over HTTP and, with the extra `grpc`, over gRPC."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

from perfkit import freed
from perfkit.collect.http_server import HttpServer
from perfkit.collect.intake import Intake
from perfkit.collect.otlp_http import OtlpHandler
from perfkit.collect.spool import Spool
from perfkit.errors import RecordError, UsageError
from perfkit.manifest import CaptureInfo

DEFAULT_HOST, HTTP_PORT, GRPC_PORT = "127.0.0.1", 4318, 4317
_KEPT_BYTES = 32 << 20
"""Of what bodies and their checks were given, for the next: a sixth of the time went into having it
from the kernel anew."""

Address = tuple[str, int]


class _Server(Protocol):
    port: int
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address

    def close(self) -> None: ...


_AnyServer = TypeVar("_AnyServer", bound=_Server)


def parse_address(text: str, option: str = "--otlp", default_port: int = HTTP_PORT) -> Address:
    """Read `HOST:PORT`, `HOST`, `:PORT` or `PORT`; what is missing is the default.

    Raises UsageError.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        host, port_text = ("", text) if text.isdigit() else (text, "")
    elif text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port_text = text, ""
    try:
        port = int(port_text) if port_text else default_port
        if not 0 <= port <= 65535:
            raise ValueError
        host = host.strip("[]") or DEFAULT_HOST
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (ValueError, UnicodeError, socket.gaierror):
        raise UsageError(
            f"{option} {text!r} is not an address to listen on",
            hint=f"write HOST:PORT, for example 127.0.0.1:{default_port}; and -- before a command",
        ) from None
    return host, port


class Receiver:
    """Takes OTLP into a spool until it is closed."""

    def __init__(
        self,
        http: Address | None,
        spool: Spool,
        *,
        grpc: Address | None = None,
        token: str | None = None,
    ) -> None:
        """Bind and begin to serve. Raises RecordError when a port cannot be had."""
        # Bodies of about one size come and go all the time.
        freed.keep(_KEPT_BYTES)
        self.intake = Intake(spool, token)
        self.token = token
        self.http: HttpServer | None = None
        self.grpc: _Server | None = None
        with contextlib.ExitStack() as undo:
            if http is not None:
                self.http = _listen(
                    "--otlp", http, lambda: HttpServer(http, OtlpHandler(self.intake))
                )
                undo.callback(self.http.close)
            if grpc is not None:
                # Optional, and slow to load.
                from perfkit.collect.otlp_grpc import GrpcServer

                self.grpc = _listen("--otlp-grpc", grpc, lambda: GrpcServer(grpc, self.intake))
            undo.pop_all()

    @property
    def _servers(self) -> list[_Server]:
        return [server for server in (self.http, self.grpc) if server is not None]

    @property
    def endpoints(self) -> list[str]:
        """URLs for exporters on this machine."""
        return [_url(server) for server in self._servers]

    def environment(self) -> dict[str, str]:
        """Return the settings that point an OpenTelemetry exporter here.

        https://opentelemetry.io/docs/specs/otel/protocol/exporter/
        """
        protocol = "http/protobuf" if self.http is not None else "grpc"
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoints[0],
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        if self.token:
            settings["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer%20{self.token}"
        return settings

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return all(server.ip.is_loopback for server in self._servers)

    def describe(self, info: CaptureInfo) -> None:
        """Write into a capture what came, and what did not."""
        intake = self.intake
        info.sources.append(
            {
                "name": "otlp",
                "endpoints": self.endpoints,
                "received": dict(intake.received),
                "refused": dict(intake.refused),
                "postponed": dict(intake.postponed),
            }
        )
        for why, count in intake.refused.items():
            info.lose("OTLP requests", count, why)
        for why, count in intake.postponed.items():
            info.note(f"OTLP senders were asked {count} times to come again later: {why}.")
        if intake.received["logs"]:
            info.note("Log records came over OTLP; perfkit keeps no logs.")
        if not self.is_loopback:
            where = ", ".join(self.endpoints)
            guard = "with a token" if self.token else "without a token"
            info.note(f"OTLP was received {guard} on {where}, not only on loopback.")

    def close(self) -> None:
        """Stop listening. Requests that are being served may still be acknowledged."""
        for server in self._servers:
            server.close()
        self.intake.close()


def _url(server: _Server) -> str:
    ip = server.ip
    if ip.is_unspecified:
        ip = ipaddress.ip_address("127.0.0.1" if ip.version == 4 else "::1")
    return f"http://[{ip}]:{server.port}" if ip.version == 6 else f"http://{ip}:{server.port}"


def _listen(option: str, address: Address, serve: Callable[[], _AnyServer]) -> _AnyServer:
    host, port = address
    try:
        return serve()
    except OSError as error:
        raise _cannot_listen(option, host, port, error) from error


def _cannot_listen(option: str, host: str, port: int, error: OSError) -> RecordError:
    if error.errno == errno.EADDRINUSE:
        return RecordError(
            f"port {port} on {host} is in use by another program",
            hint=f"see which: ss -ltnp 'sport = :{port}'; or let perfkit choose one: "
            f"{option} {host}:0 (it prints which)",
        )
    if error.errno == errno.EACCES:
        hint = f"choose a port above 1023, for example {option} 127.0.0.1:4318"
        return RecordError(f"no permission to listen on port {port}", hint=hint)
    return RecordError(
        f"cannot listen on {host}:{port}: {error.strerror or error}",
        hint=f"choose an address of this machine, for example {option} 127.0.0.1",
    )
