"""Measures the network: interfaces, and what TCP had to refuse or repeat."""

from __future__ import annotations

from perfkit.collect.resources import procfs
from perfkit.collect.resources.rows import Metric, Rows, counter

_INTERFACE, _DIRECTION = "network.interface.name", "network.io.direction"
_MAX_INTERFACES = 16

IO = counter(
    "system.network.io",
    "By",
    "bytes received and sent",
    _INTERFACE,
    _DIRECTION,
    source="/proc/PID/net/dev",
)
ERRORS = counter(
    "system.network.errors",
    "{error}",
    "errors while receiving and sending",
    _INTERFACE,
    _DIRECTION,
    source="/proc/PID/net/dev",
)
DROPPED = counter(
    "system.network.packet.dropped",
    "{packet}",
    "packets dropped although nothing was wrong with them",
    _INTERFACE,
    _DIRECTION,
    source="/proc/PID/net/dev",
)


def _tcp(name: str, unit: str, doc: str, file: str) -> Metric:
    return counter(f"system.linux.tcp.{name}", unit, doc, source=f"/proc/PID/net/{file}")


OVERFLOWS = _tcp(
    "listen.overflows",
    "{connection}",
    "connections refused because the queue of a listening socket was full",
    "netstat",
)
DROPS = _tcp(
    "listen.drops", "{connection}", "connections refused for this or another reason", "netstat"
)
RETRANSMITTED = _tcp("retransmits", "{packet}", "segments sent again", "snmp")
SENT = _tcp("segments", "{packet}", "segments sent, without those sent again", "snmp")
FAILED = _tcp("failed_connects", "{connection}", "connections that could not be made", "snmp")
METRICS = (IO, ERRORS, DROPPED, OVERFLOWS, DROPS, RETRANSMITTED, SENT, FAILED)

_TCP = {
    OVERFLOWS: "TcpExt.ListenOverflows",
    DROPS: "TcpExt.ListenDrops",
    RETRANSMITTED: "Tcp.RetransSegs",
    SENT: "Tcp.OutSegs",
    FAILED: "Tcp.AttemptFails",
}


class Network:
    """Measures the network namespace of a process, or our own."""

    def __init__(self, pid: int | None) -> None:
        self._folder = f"/proc/{pid or 'self'}/net"

    def measure(self, rows: Rows) -> None:
        """Add the rows of the busiest interfaces, and of TCP."""
        links = procfs.links(procfs.read(f"{self._folder}/dev"))
        used = [name for name, link in links.items() if link.received_bytes + link.sent_bytes]
        used.sort(key=lambda name: -(links[name].received_bytes + links[name].sent_bytes))
        for name in used[:_MAX_INTERFACES]:
            measure_link(rows, name, links[name])
        counters = procfs.net_counters(procfs.read(f"{self._folder}/netstat"))
        counters |= procfs.net_counters(procfs.read(f"{self._folder}/snmp"))
        for metric, key in _TCP.items():
            if key in counters:
                rows.add(metric, counters[key])


def measure_link(rows: Rows, name: str, link: procfs.Link) -> None:
    """Add the rows of one interface."""
    for metric, received, sent in (
        (IO, link.received_bytes, link.sent_bytes),
        (ERRORS, link.received_errors, link.sent_errors),
        (DROPPED, link.received_dropped, link.sent_dropped),
    ):
        rows.add(metric, received, (_INTERFACE, name), (_DIRECTION, "receive"))
        rows.add(metric, sent, (_INTERFACE, name), (_DIRECTION, "transmit"))
