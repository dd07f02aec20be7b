"""A small HTTP/1.1 server with full control of the bytes it sends.

It frames and keeps alive as Node does (Date, Connection, Keep-Alive, then the length), unless the handler says
otherwise, and can do what a server never should: hang, close, reset, answer with any bytes at all.
The listening socket is its own, not asyncio's: the port can be shut and opened again in one step, between two requests.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from ssl import SSLContext
from typing import Any, Self, cast
from urllib.parse import parse_qsl

MAX_HEAD = 65536
"""Bytes; a longer request head is malformed."""

REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """A request as read: the target is raw, header names are in lower case, the last of equal headers counts.

    `connection` numbers the connections of a server in the order of arrival, from 1.
    """

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    connection: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; what `headers` does not say of date, connection and length is added.

    `lower_case` sends every header name in lower case, the added ones too, as Node does when it passes an answer on.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    chunked: bool = False
    lower_case: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer; the connection stays open until the client goes or the server stops."""


@dataclass(frozen=True, slots=True)
class Close:
    """The connection is closed without a byte."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (RST)."""


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes as they are, and how the connection ends."""

    data: bytes
    then: Hang | Close | Reset = Close()


Reply = Answer | Raw | Hang | Close | Reset
Handler = Callable[[Request], Reply | Awaitable[Reply]]


def render(answer: Answer, *, head: bool = False, close: bool = False, keep_alive: float = 5.0) -> bytes:
    """Return the bytes of an answer; `head` leaves the body out, `close` announces the end of the connection."""
    given = {name.lower() for name, _ in answer.headers}
    added = [("Date", _date(int(time.time())))]
    added += [("Connection", "close")] if close else [("Connection", "keep-alive")]
    added += [] if close else [("Keep-Alive", f"timeout={keep_alive:.0f}")]
    body = answer.body
    if answer.chunked:
        # Node says nothing of the framing when it streams an answer to HEAD.
        added += [] if head else [("Transfer-Encoding", "chunked")]
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif "content-length" not in given and answer.status not in (204, 304):
        added.append(("Content-Length", str(len(body))))
    headers = [*answer.headers, *(header for header in added if header[0].lower() not in given)]
    if answer.lower_case:
        headers = [(name.lower(), value) for name, value in headers]
    lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}", *(f"{n}: {v}" for n, v in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head else body)


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _take(buffer: bytearray, connection: int) -> tuple[Request, bool] | None:
    """Take one request off the buffer, with whether to close after it; None if it is not complete.

    Raises ValueError if it is malformed; a chunked body counts as that, no client of the simulators sends one.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0 or end > MAX_HEAD:
        if len(buffer) > MAX_HEAD:
            raise ValueError("request head too long")
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.strip() != name or not name:
            raise ValueError("malformed header")
        headers[name.lower()] = value.strip()
    if version not in ("HTTP/1.1", "HTTP/1.0") or "transfer-encoding" in headers:
        raise ValueError("not served")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise ValueError("malformed length")
    start, stop = end + 4, end + 4 + int(length)
    if len(buffer) < stop:
        return None
    body = bytes(buffer[start:stop])
    del buffer[:stop]
    path, _, query = target.partition("?")
    pairs = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    close = version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
    return Request(method, target, path, pairs, headers, body, connection), close


class Server:
    """An HTTP server for one handler; the handler may answer at once or be awaited.

    `requests` holds the last thousand, newest last; `accepted` counts the connections accepted so far.
    An idle connection is closed after `keep_alive` seconds.
    """

    def __init__(self, handler: Handler, ssl: SSLContext | None = None, keep_alive: float = 5.0) -> None:
        self.handler = handler
        self.ssl = ssl
        self.keep_alive = keep_alive
        self.host = ""
        self.port = 0
        self.accepted = 0
        self.requests: deque[Request] = deque(maxlen=1000)
        self.listening = False
        self._socket: socket.socket | None = None
        self.streams: set[_Connection] = set()
        self.tasks: set[asyncio.Future[Any]] = set()

    @property
    def connections(self) -> int:
        """The number of connections open now."""
        return len(self.streams)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        self.host, self.port = host, port
        self._socket = self._bind()
        self.port = self._socket.getsockname()[1]
        self.reopen()

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind((self.host, self.port))
        except OSError:
            bound.close()
            raise
        return bound

    def reopen(self) -> None:
        """Accept connections again, at once."""
        if self._socket and not self.listening:
            self._socket.listen(1024)
            self.listening = True
            asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)

    def cut(self) -> None:
        """Refuse connections and drop the open ones, at once."""
        if self._socket and self.listening:
            self.listening = False
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            # Bound but not listening: connects are refused and nobody else gets the port.
            self._socket = self._bind()
        for connection in tuple(self.streams):
            connection.abort()
        for task in tuple(self.tasks):
            task.cancel()

    async def listen(self) -> None:
        """Open the same port again."""
        self.reopen()

    async def refuse(self) -> None:
        """Close the listening socket and every connection: connects are refused."""
        self.cut()
        await self._settle()

    async def stop(self) -> None:
        """Close everything."""
        self.cut()
        if self._socket:
            self._socket.close()
            self._socket = None
        await self._settle()

    async def _settle(self) -> None:
        await asyncio.sleep(0)  # the task of a connection just accepted enters the set by itself
        while self.streams or self.tasks:  # noqa: ASYNC110 - a few turns of the loop, when stopping
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        """Start on a free port of the loopback, unless it is started."""
        if not self._socket:
            await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # no more of them, or gone before being accepted
            while True:
                client, _ = listener.accept()
                client.setblocking(False)
                self.accepted += 1
                loop.create_task(self._adopt(client, self.accepted))  # noqa: RUF006 - the loop holds it until it enters `tasks`

    async def _adopt(self, client: socket.socket, number: int) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        with contextlib.suppress(OSError):  # a failed handshake, or gone meanwhile
            await loop.connect_accepted_socket(lambda: _Connection(self, number), client, ssl=self.ssl)


class Service:
    """A simulated service behind one server, usable as an async context manager; `prefix` stands before its paths."""

    def __init__(self, handler: Handler, ssl: SSLContext | None = None, prefix: str = "") -> None:
        self.server = Server(handler, ssl)
        self.prefix = prefix

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{'https' if self.server.ssl else 'http'}://{self.server.host}:{self.server.port}{self.prefix}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        await self.server.start(host, port)

    async def stop(self) -> None:
        """Close everything."""
        await self.server.stop()

    async def __aenter__(self) -> Self:
        """Start on a free port of the loopback."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()


@dataclass(slots=True)
class Faults:
    """Faults to switch on while a service runs; `on_change` is called whenever one is set.

    The port of a process that dies has to close at once, not at the next request.
    """

    on_change: Callable[[], None] | None = field(default=None, init=False, repr=False, compare=False)

    def __setattr__(self, name: str, value: object) -> None:
        """Set a field and say so."""
        object.__setattr__(self, name, value)
        changed = getattr(self, "on_change", None)  # not there yet while the fields are first set
        if changed:
            changed()


class _Connection(asyncio.Protocol):
    """One connection: its requests are answered in turn."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._number = number
        self._buffer = bytearray()
        self._busy = False
        self._task: asyncio.Future[Reply] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.streams.add(self)
        if not self._server.listening:  # accepted just before the port was shut
            self.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._server.streams.discard(self)
        if self._idle:
            self._idle.cancel()
        if self._task:
            self._task.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve()

    def _serve(self) -> None:
        """Answer what is in the buffer, until an answer takes its time or a request is not complete."""
        while self._buffer and not self._busy and not self._transport.is_closing():
            try:
                taken = _take(self._buffer, self._number)
            except ValueError:
                self._transport.close()
                return
            if taken is None:
                return
            request, close = taken
            self._busy = True
            if self._idle:
                self._idle.cancel()
            self._server.requests.append(request)
            reply = self._server.handler(request)
            if isinstance(reply, Answer | Raw | Hang | Close | Reset):
                self._send(request, reply, close=close)
            else:
                self._task = asyncio.ensure_future(reply)
                self._server.tasks.add(self._task)
                self._task.add_done_callback(partial(self._ready, request, close=close))

    def _ready(self, request: Request, task: asyncio.Future[Reply], *, close: bool) -> None:
        self._server.tasks.discard(task)
        self._task = None
        if task.cancelled():
            return
        if error := task.exception():
            self.abort()
            asyncio.get_running_loop().call_exception_handler({"message": "handler failed", "exception": error})
            return
        self._send(request, task.result(), close=close)
        self._serve()

    def _send(self, request: Request, reply: Reply, *, close: bool) -> None:
        if self._transport.is_closing():
            return
        match reply:
            case Answer():
                keep_alive = self._server.keep_alive
                data = render(reply, head=request.method == "HEAD", close=close, keep_alive=keep_alive)
                self._transport.write(data)
                if close:
                    self._transport.close()
                else:
                    self._busy = False
                    self._idle = asyncio.get_running_loop().call_later(keep_alive, self._transport.close)
            case Raw():
                self._transport.write(reply.data)
                self._end(reply.then)
            case _:
                self._end(reply)

    def _end(self, how: Hang | Close | Reset) -> None:
        if isinstance(how, Close):
            self._transport.close()
        elif isinstance(how, Reset):
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
