"""Serves HTTP/1.1 from one thread, whatever comes: bounded in time, memory and connections.

With a thread for each connection, an eighth of the CPU went into taking turns when requests were
many and each was worth less than a millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import threading
from collections import deque
from http import HTTPStatus

from perfkit.collect.http_request import Answer, Handler, Incoming, Request

_MAX_CONNECTIONS = 256
_BACKLOG = 128
_READ_BYTES = 256 << 10
_IDLE_S = 120.0
_REQUEST_S = 600.0
"""How long a request may take to come in: it holds memory that others wait for."""
_LINGER_S = 2.0
"""How long a client may take to read the last answer: with a reset, it could be lost."""
_CLOSE_S = 5.0
"""How long requests that are being served may still take when the server is closed."""


class HttpServer:
    """Serves until it is closed."""

    def __init__(self, address: tuple[str, int], handler: Handler) -> None:
        """Bind and begin to serve. Raises OSError."""
        self._listening = _listen(*address)
        bound = self._listening.getsockname()
        self.ip = ipaddress.ip_address(str(bound[0]))
        self.port: int = bound[1]
        self.handler = handler
        self.buffer = memoryview(bytearray(_READ_BYTES))
        """What is read into: one is enough for one thread."""
        self.connections: set[_Connection] = set()
        self.loop = asyncio.new_event_loop()
        self._answers: deque[tuple[_Connection, Answer]] = deque()
        self._woken = self._resting = False
        self._closing, self._empty = asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Requests that are being served are still answered."""
        with contextlib.suppress(RuntimeError):  # closed before
            self.loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def reply(self, connection: _Connection, answer: Answer) -> None:
        """Send an answer soon. From any thread: the loop is woken once for many."""
        self._answers.append((connection, answer))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # closed: nobody waits for it any more
                self.loop.call_soon_threadsafe(self._send_answers)

    @property
    def closing(self) -> bool:
        """Whether no more connections are served."""
        return self._closing.is_set()

    def forget(self, connection: _Connection) -> None:
        """Hear that a connection has ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def will_rest(self) -> None:
        """Hear that a request was given to the handler."""
        if not self._resting:
            self._resting = True
            self.loop.call_soon(self._rest)

    def _rest(self) -> None:
        self._resting = False
        self.handler.rest()

    def _send_answers(self) -> None:
        self._woken = False
        while self._answers:
            connection, answer = self._answers.popleft()
            try:
                connection.answer(answer)
            except Exception as error:  # others wait for theirs
                self.handler.broke(error)
                connection.abort()

    def _run(self) -> None:
        self.loop.set_exception_handler(lambda _, context: self._on_error(context))
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.loop.close()

    def _on_error(self, context: dict[str, object]) -> None:
        error = context.get("exception")
        self.handler.broke(error if isinstance(error, BaseException) else None)

    async def _serve(self) -> None:
        server = await self.loop.create_server(
            lambda: _Connection(self), sock=self._listening, backlog=_BACKLOG
        )
        await self._closing.wait()
        server.close()
        self._empty.clear()
        for connection in list(self.connections):
            connection.end_when_answered()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), _CLOSE_S)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class _Connection(asyncio.BufferedProtocol):
    """One connection: its requests are served and answered one after the other."""

    _transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._handler = server.handler
        self._incoming = Incoming(self._handler)
        self._serving: Request | None = None
        self._last_word = False
        """Whether the last answer was sent: what still comes is read and dropped."""
        self._no_more = False
        """Whether the client sends no more."""
        self._deaf = False
        self._heard_s = server.loop.time()
        self._partial: Request | None = None
        self._partial_since_s = self._heard_s
        self._timer = server.loop.call_later(_IDLE_S, self._look)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._server.connections) >= _MAX_CONNECTIONS:
            busy = self._handler.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            self._last_word = True
            transport.write(busy._replace(close=True).encode())
            transport.close()
        elif self._server.closing:
            transport.close()
        else:
            self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free what it had."""
        self._timer.cancel()
        self._incoming.release()
        self._server.forget(self)
        if exc is not None:
            self._handler.broke(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to."""
        del sizehint
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self._last_word:
            return
        self._heard_s = self._server.loop.time()
        self._incoming.feed(self._server.buffer[:nbytes])
        if self._partial is not self._incoming.partial:
            self._partial, self._partial_since_s = self._incoming.partial, self._heard_s
        self._serve_next()
        if self._incoming.requests:  # it does not wait for answers, so it has to
            self._transport.pause_reading()
        self._encourage()

    def eof_received(self) -> bool:
        """Answer what has come; returns whether the connection is still needed for that."""
        self._no_more = True
        if self._last_word:
            return False
        self._incoming.stop(HTTPStatus.BAD_REQUEST, "the request is cut off")
        self._serve_next()
        return self._serving is not None

    def pause_writing(self) -> None:
        """Hear that a client does not read its answers."""
        self._deaf = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Hear that it does."""
        self._deaf = False
        self._go_on_reading()

    # What the server calls.

    def answer(self, answer: Answer) -> None:
        """Answer the request that is being served."""
        request, self._serving = self._serving, None
        if request is None:
            return
        # Not before, even if the connection has ended: until now its body was in memory.
        self._handler.release(len(request.body))
        self._heard_s = self._server.loop.time()
        if self._transport.is_closing():
            return
        if answer.close or not request.keep_alive:
            self._transport.write(answer._replace(close=True).encode())
            self._transport.close()
            return
        self._transport.write(answer.encode())
        self._serve_next()
        if self._no_more and self._serving is None and not self._last_word:
            self._transport.close()
        self._encourage()
        self._go_on_reading()

    def end_when_answered(self) -> None:
        """Serve what is being served, and nothing more."""
        if self._last_word:
            self._transport.abort()
        elif self._serving is None:
            self._transport.close()
        else:
            self._serving.keep_alive = False

    def abort(self) -> None:
        """End it, whatever it does."""
        self._transport.abort()

    # Its own.

    def _serve_next(self) -> None:
        if self._serving is not None or self._last_word or not self._incoming.requests:
            return
        request = self._incoming.requests.popleft()
        if request.refusal is not None:
            self._end(request.refusal)
            return
        self._serving = request
        reply = functools.partial(self._server.reply, self)
        try:
            self._handler.serve(request, reply)
            self._server.will_rest()
        except Exception as error:
            self._handler.broke(error)
            reply(Answer(HTTPStatus.INTERNAL_SERVER_ERROR, close=True))

    def _encourage(self) -> None:
        """Tell a client that waits for it to send the body."""
        if self._serving is None and not self._last_word and self._incoming.asks_to_go_on():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _end(self, answer: Answer) -> None:
        """Say a last word, which may come before the client has said its own."""
        self._last_word = True
        self._incoming.release()
        self._transport.write(answer._replace(close=True).encode())
        if self._no_more:
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # it has just gone
            self._transport.write_eof()
        self._transport.resume_reading()
        self._timer.cancel()
        self._timer = self._server.loop.call_later(_LINGER_S, self._transport.abort)

    def _go_on_reading(self) -> None:
        busy = self._incoming.requests or self._deaf
        if not (busy or self._no_more or self._transport.is_closing()):
            self._transport.resume_reading()

    def _look(self) -> None:
        """Look whether anything came lately."""
        now_s = self._server.loop.time()
        began_s = now_s if self._incoming.partial is None else self._partial_since_s
        left_s = min(self._heard_s + _IDLE_S, began_s + _REQUEST_S) - now_s
        if self._serving is not None or left_s > 0:
            wait_s = _IDLE_S if self._serving is not None else left_s
            self._timer = self._server.loop.call_later(wait_s, self._look)
        elif self._incoming.partial is not None:
            self._incoming.stop(HTTPStatus.REQUEST_TIMEOUT, "the rest of the request did not come")
            self._serve_next()
        else:
            self._transport.abort()
