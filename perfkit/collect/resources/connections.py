"""Counts the TCP connections of a process by peer: its database connections, for one.

Connections over Unix sockets have no address of a peer and are not counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable

from perfkit.collect.resources import procfs
from perfkit.collect.resources.rows import Attribute, Rows, gauge

_PEER, _PEER_PORT = "network.peer.address", "network.peer.port"
_LOCAL_PORT, _STATE = "network.local.port", "network.connection.state"
_SOURCE = "/proc/PID/net/tcp, tcp6"
_MAX_PEERS = 30

COUNT = gauge(
    "process.network.connection.count",
    "{connection}",
    "TCP connections: to a peer, with its address and port; from clients, with "
    "`network.local.port` alone. Peers beyond the 30 most frequent have the address `other`",
    _PEER,
    _PEER_PORT,
    _LOCAL_PORT,
    _STATE,
    source=_SOURCE,
)
BACKLOG = gauge(
    "process.linux.listen.backlog",
    "{connection}",
    "connections that a listening socket has got and nobody has accepted yet",
    _LOCAL_PORT,
    source=_SOURCE,
)
UNREAD = gauge(
    "process.linux.listen.unread",
    "{connection}",
    "connections from clients that were accepted and have sent what nobody has read yet: a request "
    "that waits for a thread or for the event loop, or the rest of a large one",
    _LOCAL_PORT,
    source=_SOURCE,
)
METRICS = (COUNT, BACKLOG, UNREAD)


class Connections:
    """Counts the connections of one process."""

    def __init__(self, pid: int) -> None:
        self._folder = f"/proc/{pid}"
        self._before: set[tuple[Attribute, ...]] = set()

    def measure(self, rows: Rows) -> None:
        """Add the rows."""
        inodes = self._inodes()
        found = [
            connection
            for name in ("tcp", "tcp6")
            for connection in procfs.connections(procfs.read(f"{self._folder}/net/{name}"), inodes)
        ]
        counts = count_peers(found)
        for attributes, count in counts.items():
            rows.add(COUNT, count, *attributes)
        for attributes in self._before - set(counts):
            rows.add(COUNT, 0, *attributes)  # a series that just ended would look as before
        self._before = set(counts)
        for metric, waiting in ((BACKLOG, _not_accepted(found)), (UNREAD, _not_read(found))):
            for port, count in waiting.items():
                rows.add(metric, count, (_LOCAL_PORT, port))

    def _inodes(self) -> set[int]:
        """Return the inodes of the sockets that the process holds; none when we may not look."""
        found: set[int] = set()
        folder = f"{self._folder}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            return found
        for name in names:
            try:
                target = os.readlink(f"{folder}/{name}")
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
        return found


def _not_accepted(connections: Iterable[procfs.Connection]) -> Counter[int]:
    """Count by port the connections that wait to be accepted."""
    found: Counter[int] = Counter()
    for each in connections:
        if each.state == "listen":
            found[each.local_port] += each.receive_queue
    return found


def _not_read(connections: Collection[procfs.Connection]) -> Counter[int]:
    """Count by port, of those that are listened on, the connections with bytes to be read."""
    found = Counter({each.local_port: 0 for each in connections if each.state == "listen"})
    for each in connections:
        if each.state == "established" and each.receive_queue and each.local_port in found:
            found[each.local_port] += 1
    return found


def count_peers(connections: Iterable[procfs.Connection]) -> dict[tuple[Attribute, ...], int]:
    """Count connections by the attributes of their series.

    Clients are not told apart, or each would be a series of its own.
    """
    connections = list(connections)
    listening = {each.local_port for each in connections if each.state == "listen"}
    counts: Counter[tuple[Attribute, ...]] = Counter()
    for each in connections:
        if each.state == "listen":
            continue
        state: Attribute = (_STATE, each.state)
        if each.local_port in listening:
            counts[(_LOCAL_PORT, each.local_port), state] += 1
        else:
            counts[(_PEER, each.peer), (_PEER_PORT, each.peer_port), state] += 1
    found = dict(counts.most_common(_MAX_PEERS))
    for attributes, count in counts.items():
        if attributes not in found:
            other: tuple[Attribute, ...] = ((_PEER, "other"), attributes[-1])
            found[other] = found.get(other, 0) + count
    return found
