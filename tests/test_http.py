"""Asking over HTTP: phases, reasons, limits, pinning, proxies, and that nothing is resent, reused or left behind."""

import asyncio
import base64
import contextlib
import gc
import gzip
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from collectors import http as http_module
from collectors.base import CheckReport, Clock
from collectors.failures import Failure, Reason
from collectors.http import INFLATE_STEP, LARGE_BODY, HttpClient, Lookups
from health_exporter.simulators.wire import Answer, Close, Handler, Hang, Raw, Request, Reset, Server
from tests.support import FakeClock, contexts_of, pryv
from tests.tls_support import HOST, LOCAL, Asked, Certificates, Names, ask, probing, trusting, url_of

DELAY = 0.15
OK = Answer(200, body=b"{}")
MIB = 2**20


async def reply_to(handler: Handler | Any, method: str = "GET", **keys: Any) -> Asked:
    """Ask a server that answers so; a Raw, Answer, ... stands for a handler that always gives it."""
    async with Server(handler if callable(handler) else lambda _: handler) as server:
        asked = await ask(pryv(url_of(server), **keys), method)
        assert len(server.requests) == 1
    return asked


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve TCP and give the port; the connections end with the handler."""

    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        while tasks:  # noqa: ASYNC110 - a few turns of the loop, when stopping
            await asyncio.sleep(0)
        await asyncio.sleep(0)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def relay(port: int, delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on to a port, but only after a while."""
    up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.sleep(delay)
        await asyncio.gather(pipe(reader, up_writer), pipe(up_reader, writer))
    finally:
        up_writer.close()


@contextlib.contextmanager
def full_backlog(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Give a port that answers no connection attempt."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for is in another process, thread or the kernel
            await asyncio.sleep(0.001)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


# Phases


def assert_delayed(phases: dict[str, float], phase: str, delay: float = DELAY) -> None:
    assert phases[phase] >= delay * 0.95
    rest = sum(phases.values()) - phases[phase]
    assert rest < phases[phase], phases


async def test_a_plain_request_to_an_address_has_neither_resolve_nor_tls() -> None:
    asked = await reply_to(OK)
    assert asked.reply is not None
    assert (asked.reply.status, asked.reply.body) == (200, b"{}")
    assert asked.report.phases.keys() == {"connect", "processing", "transfer"}
    assert asked.lookup_seconds is None
    assert asked.expiry is None


async def test_a_slow_lookup_is_the_phase_resolve() -> None:
    async with Server(lambda _: OK) as server:
        asked = await ask(pryv(url_of(server, "localhost")), lookups=Names({"localhost": ["127.0.0.1"]}, DELAY))
    assert asked.report.phases.keys() == {"resolve", "connect", "processing", "transfer"}
    assert_delayed(asked.report.phases, "resolve")
    assert asked.lookup_seconds == asked.report.phases["resolve"]


async def test_a_first_address_that_does_not_answer_is_the_phase_connect() -> None:
    async with Server(lambda _: OK) as server:
        with full_backlog("127.0.0.2", server.port):
            names = Names({"localhost": ["127.0.0.2", "127.0.0.1"]})
            asked = await ask(pryv(url_of(server, "localhost")), lookups=names)
    assert asked.reply is not None
    assert_delayed(asked.report.phases, "connect", 0.2)


async def test_a_slow_handshake_is_the_phase_tls(certificates: Certificates) -> None:
    async with (
        Server(lambda _: OK, certificates.server(certificates.good)) as server,
        serving(partial(relay, server.port, DELAY)) as port,
    ):
        asked = await ask(pryv(f"https://localhost:{port}", **trusting(certificates)))
    assert asked.reply is not None
    assert asked.report.phases.keys() == {"resolve", "connect", "tls", "processing", "transfer"}
    assert_delayed(asked.report.phases, "tls")


async def test_slow_headers_are_the_phase_processing() -> None:
    async def late(_: Request) -> Answer:
        await asyncio.sleep(DELAY)
        return OK

    asked = await reply_to(late)
    assert_delayed(asked.report.phases, "processing")
    assert asked.reply is not None
    assert asked.reply.took >= DELAY * 0.95


async def test_a_slow_body_is_the_phase_transfer() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12")
        await asyncio.sleep(DELAY)
        writer.write(b"34")

    async with serving(slow) as port:
        asked = await ask(pryv(f"http://127.0.0.1:{port}"))
    assert asked.reply is not None
    assert asked.reply.body == b"1234"
    assert_delayed(asked.report.phases, "transfer")


async def test_the_middle_of_the_exchange_is_half_its_length_before_the_end() -> None:
    clock = FakeClock(1000.0)
    async with Server(lambda _: OK) as server:
        target = pryv(url_of(server))
        async with HttpClient("t", clock.clock).probe(target, contexts_of(target)[target.tls_config]) as http:
            reply = await http.ask(CheckReport("a"), "GET", http.origin(target.address), "/")
    assert reply.middle == 1000.0 - reply.took / 2
    assert 0 < reply.took < 1


async def test_the_phases_of_several_requests_of_a_check_add_up() -> None:
    async def late(_: Request) -> Answer:
        await asyncio.sleep(0.05)
        return OK

    async with Server(late) as server:
        target = pryv(url_of(server))
        async with probing(target) as http:
            report = CheckReport("a")
            for _ in range(3):
                await http.ask(report, "GET", http.origin(target.address), "/")
    assert report.phases["processing"] >= 0.14


async def test_each_lookup_counts_once_however_the_requests_of_a_check_mix() -> None:
    names = Names({"localhost": ["127.0.0.1"], "core.example.com": ["127.0.0.1"]}, 0.05)
    async with Server(lambda _: OK) as server, probing(pryv(url_of(server)), names) as http:
        report = CheckReport("a")
        for host in ("localhost", "core.example.com", "127.0.0.1", "localhost"):
            await http.ask(report, "GET", http.origin(URL(url_of(server, host))), "/")
    assert report.phases["resolve"] >= 0.14
    assert http.lookup_seconds is not None
    assert 0.09 <= http.lookup_seconds < report.phases["resolve"]


async def test_what_was_not_begun_is_not_measured() -> None:
    unknown = await ask(pryv("http://unknown.example.com"))
    assert unknown.report.phases.keys() == {"resolve"}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = await ask(pryv(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert refused.report.phases.keys() == {"connect"}
    assert refused.reason == Reason.CONNECT
    assert (await reply_to(Close())).report.phases.keys() == {"connect", "processing"}


# The deadline, in each phase


async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def head_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
    await asyncio.Event().wait()


async def request_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def hanging_in(phase: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, Lookups]]:
    """Give a URL whose request hangs in a phase, and the lookups to use."""
    if phase == "resolve":
        go_on = threading.Event()

        def lookup(*_: object, **__: object) -> list[Any]:
            go_on.wait(5)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", lookup)
            try:
                yield "http://hung.example.com", Lookups()
            finally:
                go_on.set()
                await until(lambda: not any(t.name.startswith("lookup") for t in threading.enumerate()))
                await asyncio.sleep(0)
    elif phase == "connect":
        with full_backlog() as port:
            yield f"http://127.0.0.1:{port}", LOCAL
    else:
        handler = {"tls": never, "processing": request_only, "transfer": head_only}[phase]
        async with serving(handler) as port:
            yield f"http{'s' if phase == 'tls' else ''}://127.0.0.1:{port}", LOCAL


@pytest.mark.parametrize(
    ("phase", "before"),
    [
        ("resolve", set()),
        ("connect", set()),
        ("tls", {"connect"}),
        ("processing", {"connect"}),
        ("transfer", {"connect", "processing"}),
    ],
)
async def test_a_phase_under_way_at_the_deadline_is_given_so_far_and_nothing_is_left(
    phase: str, before: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, files, threads = asyncio.all_tasks(), open_files(), set(threading.enumerate())
    async with hanging_in(phase, monkeypatch) as (url, lookups):
        asked = await ask(pryv(url), lookups=lookups, deadline=0.06)
    assert asked.late
    assert asked.report.phases.keys() == {phase, *before}
    assert 0.03 < asked.report.phases[phase] < 1
    assert asked.report.status == (200 if phase == "transfer" else None)
    await until(lambda: (asyncio.all_tasks(), open_files()) == (tasks, files))
    assert set(threading.enumerate()) <= threads


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_probe_that_went_well_or_broke_leaves_nothing(certificates: Certificates) -> None:
    def handler(request: Request) -> Answer | Close:
        return Close() if request.path == "/close" else OK

    async with Server(handler, certificates.server(certificates.good)) as server:
        await ask(pryv(url_of(server), **trusting(certificates)))
        await until(lambda: server.connections == 0)
        tasks, files, threads = asyncio.all_tasks(), open_files(), set(threading.enumerate())
        for path in ("/", "/close"):
            await ask(pryv(url_of(server), **trusting(certificates)), path=path)
        await ask(pryv(url_of(server)))  # not trusted: read a second time
        await until(lambda: server.connections == 0)
        await until(lambda: (asyncio.all_tasks(), open_files()) == (tasks, files))
        assert set(threading.enumerate()) <= threads


async def test_leaving_a_probe_ends_the_reading_of_a_certificate(certificates: Certificates) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.good)) as server:
        connections = 0

        async def first_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await (relay(server.port, 0, reader, writer) if connections == 1 else asyncio.Event().wait())

        async with serving(first_only) as port:
            tasks = asyncio.all_tasks()
            asked = await ask(pryv(f"https://localhost:{port}"), deadline=0.3)
            assert connections == 2
            assert asked.expiry is None
            assert not [task for task in asyncio.all_tasks() - tasks if "read" in repr(task.get_coro())]


@pytest.mark.parametrize("turns", range(6))
async def test_a_probe_that_is_cancelled_while_it_ends_leaves_no_session_open(
    turns: int, certificates: Certificates
) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.good)) as server:
        target, probes = pryv(url_of(server)), []  # not trusted: the certificate is read at the end

        async def probe() -> None:
            async with probing(target) as http:
                probes.append(http)
                with pytest.raises(Failure):
                    await http.ask(CheckReport("test"), "GET", http.origin(target.address), "/x")

        task = asyncio.create_task(probe())
        while not (probes and probes[0].certificate_expiry):  # noqa: ASYNC110 - turns of the loop are counted from here
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert probes[0]._session.closed


async def test_a_certificate_that_cannot_be_read_in_time_still_is_the_reason_tls(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "CERTIFICATE_SECONDS", 0.05)
    async with Server(lambda _: OK, certificates.server(certificates.good)) as server:
        connections = 0

        async def first_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await (relay(server.port, 0, reader, writer) if connections == 1 else asyncio.Event().wait())

        async with serving(first_only) as port:
            asked = await ask(pryv(f"https://localhost:{port}"))
    assert asked.reason == Reason.TLS
    assert asked.expiry is None


# Exceptions and reasons


def head(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def with_gzip(data: bytes) -> Raw:
    return Raw(head("Content-Encoding: gzip", f"Content-Length: {len(data)}") + data)


GOOD_GZIP = gzip.compress(b'{"a": 1}')

BROKEN: list[tuple[str, Any, int | None]] = [
    ("closed before the headers", Close(), None),
    ("reset before the headers", Reset(), None),
    ("closed in the status line", Raw(b"HTTP/1."), None),
    ("closed inside the headers", Raw(b"HTTP/1.1 200 OK\r\nContent-Ty"), None),
    ("bad status line", Raw(b"HTP/1.1 200 OK\r\n\r\n"), None),
    ("status of two digits", Raw(b"HTTP/1.1 20 OK\r\n\r\n"), None),
    ("HTML without HTTP", Raw(b"<html><body>hello</body></html>\r\n\r\n"), None),
    ("bytes that are no text", Raw(bytes(range(256))), None),
    ("too many headers", Raw(head(*(f"X-{i}: {i}" for i in range(5000)))), None),
    ("header without a colon", Raw(head("no colon here")), None),
    ("two lengths", Raw(head("Content-Length: 2", "Content-Length: 3") + b"{}"), None),
    ("negative length", Raw(head("Content-Length: -2") + b"{}"), None),
    ("length and chunks", Raw(head("Content-Length: 2", "Transfer-Encoding: chunked") + b"{}"), None),
    ("body shorter than promised", Raw(head("Content-Length: 10") + b"{}"), 200),
    ("chunks without an end", Raw(head("Transfer-Encoding: chunked") + b"2\r\n{}\r\n"), 200),
    ("chunk cut in the middle", Raw(head("Transfer-Encoding: chunked") + b"9\r\n{}"), 200),
    ("bytes that are no gzip", with_gzip(b"{}" * 20), 200),
    ("gzip with a wrong checksum", with_gzip(GOOD_GZIP[:-8] + bytes(8)), 200),
    ("gzip cut in the middle", with_gzip(GOOD_GZIP[:-10]), 200),
    ("gzip without its trailer", with_gzip(GOOD_GZIP[:-8]), 200),
    ("gzip cut in its header", with_gzip(GOOD_GZIP[:6]), 200),
    ("gzip that goes on after its end", with_gzip(GOOD_GZIP + b"more"), 200),
]


@pytest.mark.parametrize(("answer", "status"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_an_answer_that_breaks_is_a_disconnect_and_is_asked_once(
    answer: Any, status: int | None, method: str
) -> None:
    asked = await reply_to(answer, method)
    assert asked.reason == Reason.DISCONNECT
    assert asked.report.status == status


async def test_a_reset_inside_the_body_is_a_disconnect() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("Content-Length: 10") + b"{}")
        await asyncio.sleep(0.02)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving(handler) as port:
        asked = await ask(pryv(f"http://127.0.0.1:{port}"))
    assert asked.reason == Reason.DISCONNECT
    assert asked.report.status == 200


async def test_a_reset_on_accept_is_a_disconnect() -> None:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving(handler) as port:
        asked = await ask(pryv(f"http://127.0.0.1:{port}"))
    assert asked.reason == Reason.DISCONNECT
    assert asked.report.status is None


async def test_a_header_longer_than_what_is_read_is_too_large() -> None:
    asked = await reply_to(Raw(head(f"X-Long: {'x' * 20_000}", "Content-Length: 0")))
    assert asked.reason == Reason.TOO_LARGE


async def test_a_bad_chunk_size_beside_the_headers_is_a_disconnect() -> None:
    asked = await reply_to(Raw(head("Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n"))
    assert asked.reason == Reason.DISCONNECT
    assert asked.report.status in {None, 200}


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "unknown"])
async def test_a_content_encoding_that_was_not_asked_for_is_a_decode_failure_of_a_success_only(encoding: str) -> None:
    header = (("Content-Encoding", encoding),)
    asked = await reply_to(Answer(200, header, b"{}"))
    assert asked.reason == Reason.DECODE
    assert asked.report.status == 200
    asked = await reply_to(Answer(502, header, b"{}"))
    assert asked.reply is not None
    assert asked.reply.status == 502


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
async def test_gzip_is_inflated(encoding: str) -> None:
    asked = await reply_to(Answer(200, (("Content-Encoding", encoding),), GOOD_GZIP, chunked=True))
    assert asked.reply is not None
    assert asked.reply.body == b'{"a": 1}'


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
async def test_a_plain_body_stays_as_it_is(encoding: str) -> None:
    asked = await reply_to(Answer(200, (("Content-Encoding", encoding),), b'{"a": 1}'))
    assert asked.reply is not None
    assert asked.reply.body == b'{"a": 1}'


@pytest.mark.parametrize("status", [204, 200])
async def test_an_empty_answer_may_call_itself_gzip(status: int) -> None:
    asked = await reply_to(Answer(status, (("Content-Encoding", "gzip"),)))
    assert asked.reply is not None
    assert asked.reply.body == b""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/elsewhere", "http://[", "ftp://x/", ""])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: int, location: str) -> None:
    asked = await reply_to(Answer(status, (("Location", location),)))
    assert asked.reply is not None
    assert asked.reply.status == asked.report.status == status


async def test_informational_answers_are_passed_over_but_a_switch_is_an_answer() -> None:
    asked = await reply_to(Raw(b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + head("Content-Length: 2") + b"{}"))
    assert asked.reply is not None
    assert (asked.reply.status, asked.reply.body) == (200, b"{}")
    asked = await reply_to(Raw(head("Upgrade: websocket", "Connection: upgrade", status="101 Switching Protocols")))
    assert asked.reply is not None
    assert asked.report.status == 101


@pytest.mark.parametrize("status", [100, 299, 400, 418, 500, 599, 999])
async def test_any_status_is_reported_as_it_came(status: int) -> None:
    if status == 100:
        asked = await reply_to(Raw(head(status="100 Continue") + head("Content-Length: 0", status="503 Not now")))
        assert asked.report.status == 503
    else:
        asked = await reply_to(Answer(status, body=b"x"))
        assert asked.report.status == status


async def test_a_refused_port_is_a_connect_failure_on_both_schemes() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for scheme in ("http", "https"):
            asked = await ask(pryv(f"{scheme}://127.0.0.1:{unused.getsockname()[1]}"))
            assert asked.reason == Reason.CONNECT
            assert asked.report.status is None


@pytest.mark.parametrize("host", ["unknown.example.com", "a" * 63 + ".example.com"])
async def test_a_name_without_an_address_is_a_dns_failure(host: str) -> None:
    asked = await ask(pryv(f"https://{host}"))
    assert asked.reason == Reason.DNS
    assert asked.lookup_seconds is not None


async def test_a_name_dns_cannot_carry_is_a_dns_failure() -> None:
    async with probing(pryv("http://127.0.0.1"), Lookups()) as http:
        for name in ("b" * 64, "x..example.com"):
            with pytest.raises(Failure) as caught:
                await http.ask(CheckReport("a"), "GET", http.origin(URL.build(scheme="http", host=name)), "/")
            assert caught.value.reason == Reason.DNS


# TLS


async def test_a_trusted_certificate_is_accepted_and_its_expiry_known(certificates: Certificates) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.good)) as server:
        asked = await ask(pryv(url_of(server, HOST), **trusting(certificates)))
    assert asked.reply is not None
    assert asked.expiry is not None


async def test_https_to_a_port_of_plain_http_is_a_tls_failure() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as port:
        asked = await ask(pryv(f"https://127.0.0.1:{port}"))
    assert asked.reason == Reason.TLS
    assert asked.report.status is None


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_ends_in_the_handshake_is_a_tls_failure(reset: bool) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async with serving(handler) as port:
        asked = await ask(pryv(f"https://127.0.0.1:{port}"))
    assert asked.reason == Reason.TLS
    assert asked.report.phases.keys() == {"connect", "tls"}


async def test_a_connection_that_ends_after_the_handshake_is_a_disconnect(certificates: Certificates) -> None:
    async with Server(lambda _: Close(), certificates.server(certificates.good)) as server:
        asked = await ask(pryv(url_of(server, HOST), **trusting(certificates)))
        assert asked.reason == Reason.DISCONNECT
        assert len(server.requests) == 1


# Limits


@pytest.mark.parametrize("size", [1000, 1001])
@pytest.mark.parametrize("form", ["length", "chunked", "gzip", "until the end"])
async def test_a_body_is_read_up_to_its_limit(form: str, size: int) -> None:
    body = b"x" * size
    answers = {
        "length": Answer(200, body=body),
        "chunked": Answer(200, body=body, chunked=True),
        "gzip": Answer(200, (("Content-Encoding", "gzip"),), gzip.compress(body)),
        "until the end": Raw(head() + body),
    }
    asked = await reply_to(answers[form], max_body_size=1000)
    assert asked.report.status == 200
    if size == 1000:
        assert asked.reply is not None
        assert asked.reply.body == body
    else:
        assert asked.reason == Reason.TOO_LARGE


async def test_a_length_above_the_limit_is_too_large_before_the_body_has_come() -> None:
    asked = await reply_to(Raw(head("Content-Length: 1001"), Hang()), max_body_size=1000)
    assert asked.reason == Reason.TOO_LARGE
    assert asked.report.status == 200


async def test_an_endless_body_is_too_large() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("Transfer-Encoding: chunked"))
        while not writer.is_closing():
            writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
            await writer.drain()

    async with serving(endless) as port:
        asked = await ask(pryv(f"http://127.0.0.1:{port}", max_body_size="1MiB"))
    assert asked.reason == Reason.TOO_LARGE


async def longest_stall(of: Awaitable[Asked]) -> tuple[float, Asked]:
    stall, last, done = 0.0, time.perf_counter(), False

    async def tick() -> None:
        nonlocal stall, last
        while not done:
            await asyncio.sleep(0)
            stall, last = max(stall, time.perf_counter() - last), time.perf_counter()

    ticking = asyncio.create_task(tick())
    asked = await of
    done = True
    await ticking
    return stall, asked


async def test_a_gzip_bomb_is_too_large_without_a_stall_and_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    largest = 0
    inflate = http_module._inflate

    def watched(decompressor: Any, data: bytes) -> bytes:
        nonlocal largest
        out = inflate(decompressor, data)
        largest = max(largest, len(out))
        return out

    monkeypatch.setattr(http_module, "_inflate", watched)
    pack = zlib.compressobj(9, wbits=31)
    bomb = b"".join(pack.compress(bytes(MIB)) for _ in range(64)) + pack.flush()
    assert len(bomb) < 100_000
    answer = Answer(200, (("Content-Encoding", "gzip"),), bomb)
    async with Server(lambda _: answer) as server:
        stall, asked = await longest_stall(ask(pryv(url_of(server), max_body_size="32MiB")))
        assert asked.reason == Reason.TOO_LARGE
        assert largest == INFLATE_STEP
        assert stall < 0.5
        asked = await ask(pryv(url_of(server), max_body_size="64MiB"))
        assert asked.reply is not None
        assert len(asked.reply.body) == 64 * MIB


async def test_an_endless_tail_behind_a_gzip_stream_is_no_way_to_fill_memory() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("Content-Encoding: gzip") + GOOD_GZIP)
        while not writer.is_closing():
            writer.write(bytes(65536))
            await writer.drain()

    async with serving(endless) as port:
        asked = await ask(pryv(f"http://127.0.0.1:{port}"))
    assert asked.reason == Reason.DISCONNECT


# JSON


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        (b"\xef\xbb\xbf{}", {}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\ud800"', "\ud800"),
        (b"1e999", float("inf")),
        (b"9" * 4000, int("9" * 4000)),
    ],
)
async def test_json_is_read_as_python_reads_it(body: bytes, document: Any) -> None:
    assert await HttpClient("t", Clock()).decode_json(body) == document


@pytest.mark.parametrize(
    "body", [b"", b"{", b"NaN", b'{"a": -Infinity}', b"9" * 5000, b'"\xff\xfe\xfa"', b"<html>", b"{} {}", b"\x00"]
)
@pytest.mark.parametrize("padding", [0, LARGE_BODY + 1])
async def test_what_is_no_json_is_a_value_error(body: bytes, padding: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are the library's
        await HttpClient("t", Clock()).decode_json(b" " * padding + body)


@pytest.mark.parametrize("depth", [100_000, LARGE_BODY])
async def test_json_nested_too_deep_is_too_large(depth: int) -> None:
    for body in (b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth):
        with pytest.raises(Failure) as caught:
            await HttpClient("t", Clock()).decode_json(body)
        assert caught.value.reason == Reason.TOO_LARGE


async def test_a_large_body_is_parsed_in_a_thread_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, parallel, most = [], 0, 0
    loads = json.loads

    def watched(body: bytes, **options: Any) -> Any:
        nonlocal parallel, most
        threads.append(threading.current_thread())
        parallel += 1
        most = max(most, parallel)
        time.sleep(0.01)
        parallel -= 1
        return loads(body, **options)

    monkeypatch.setattr(json, "loads", watched)
    client = HttpClient("t", Clock())
    large = json.dumps(["x" * LARGE_BODY]).encode()
    documents = await asyncio.gather(*(client.decode_json(large) for _ in range(3)))
    assert documents == [["x" * LARGE_BODY]] * 3
    assert threading.main_thread() not in threads
    assert most == 1
    await client.decode_json(b"[]")
    assert threads[-1] is threading.main_thread()


# Nothing is remembered or reused


async def test_each_request_has_its_own_connection_and_no_cookie_of_another() -> None:
    answer = Answer(200, (("Set-Cookie", "session=1; Path=/"),), b"{}")
    async with Server(lambda _: answer) as server:
        target = pryv(url_of(server, "localhost"))
        async with probing(target) as http:
            origin = http.origin(target.address)
            for _ in range(2):
                await http.ask(CheckReport("a"), "GET", origin, "/")
            await asyncio.gather(*(http.ask(CheckReport("a"), "GET", origin, "/") for _ in range(2)))
            await until(lambda: server.connections == 0)
        assert sorted(request.connection for request in server.requests) == [1, 2, 3, 4]
        assert not any("cookie" in request.headers for request in server.requests)


async def test_a_request_says_what_the_settings_say_and_nothing_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    async with Server(lambda _: OK) as server:
        target = pryv(
            url_of(server),
            basic_auth={"username": "user", "password": "pä:ss"},
            headers={"X-Tenant": "a"},
            header_files={"X-Key": str(tmp_path / "key")},
        )
        await ask(target, path="/x?limit=1&name=a%2Fb")
        request = server.requests[0]
    assert request.target == "/x?limit=1&name=a%2Fb"
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": "tests/1",
        "accept": "application/json",
        "accept-encoding": "gzip",
        "authorization": "Basic " + base64.b64encode("user:pä:ss".encode()).decode(),
        "x-tenant": "a",
        "x-key": "from-file",
        "connection": "close",
    }


async def raw_request(target: dict[str, Any], headers: dict[str, str] | None = None) -> str:
    heads = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(head("Content-Length: 0"))

    async with serving(handler) as port:
        settings = pryv(f"http://127.0.0.1:{port}", **target)
        async with probing(settings) as http:
            await http.ask(CheckReport("a"), "GET", http.origin(settings.address), "/", headers)
    return heads[0]


async def test_a_header_of_the_settings_replaces_the_own_one_whatever_its_case() -> None:
    sent = await raw_request(
        {
            "headers": {"user-agent": "mine", "ACCEPT": "text/x", "authorization": "Bearer x"},
            "basic_auth": {"username": "user", "password": "pass"},
        }
    )
    for name, value in (("user-agent", "mine"), ("accept", "text/x"), ("authorization", "Bearer x")):
        assert re.findall(rf"(?im)^{name}: (.*)\r$", sent) == [value]


async def test_a_header_of_the_request_replaces_one_of_the_settings() -> None:
    sent = await raw_request({"headers": {"x-api-key": "a"}}, {"X-API-Key": "b"})
    assert re.findall(r"(?im)^x-api-key: (.*)\r$", sent) == ["b"]


# Pinning


async def test_a_path_stands_below_the_path_of_the_url() -> None:
    async with Server(lambda _: OK) as server:
        await ask(pryv(f"{url_of(server)}/base/"), path="/x?y=%20")
        assert server.requests[0].target == "/base/x?y=%20"


async def test_a_pinned_request_goes_to_the_core_and_names_the_user(certificates: Certificates) -> None:
    context = certificates.server(certificates.good)
    said: list[str | None] = []
    context.sni_callback = lambda _, name, __: said.append(name)
    async with Server(lambda _: OK, context) as server:
        target = pryv(f"https://{HOST}:{server.port}", **trusting(certificates))
        asked = await ask(target, lookups=Names(), connect_to=f"https://127.0.0.1:{server.port}")
        assert asked.reply is not None
        assert said == [HOST]
        assert server.requests[0].headers["host"] == f"{HOST}:{server.port}"


async def test_a_pinned_request_refuses_the_certificate_of_the_core_alone(certificates: Certificates) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.issue("core.example.com"))) as server:
        target = pryv(f"https://{HOST}:{server.port}", **trusting(certificates))
        asked = await ask(target, connect_to=f"https://core.example.com:{server.port}")
        assert asked.reason == Reason.TLS
        assert not server.requests
        target = pryv(target.address.human_repr(), **trusting(certificates, server_name="core.example.com"))
        assert (await ask(target, connect_to=f"https://core.example.com:{server.port}")).reply is not None


@pytest.mark.parametrize(
    ("url", "core", "base", "authority"),
    [
        ("https://u.d.com/", "https://core.com", "https://core.com/", "u.d.com"),
        ("https://u.d.com/", "https://core.com:8443", "https://core.com:8443/", "u.d.com:8443"),
        ("https://u.d.com:99/", "https://core.com:8443", "https://core.com:99/", "u.d.com:99"),
        ("https://u.d.com/", "http://core.com:8080", "https://core.com/", "u.d.com"),
        ("https://u.d.com/reg", "https://[::1]:8443", "https://[::1]:8443/reg", "u.d.com:8443"),
        ("https://[::1]/", "https://core.com:8443", "https://core.com:8443/", "[::1]:8443"),
    ],
)
async def test_where_a_pinned_request_goes(url: str, core: str, base: str, authority: str) -> None:
    async with probing(pryv("https://core.com")) as http:
        origin = http.origin(URL(url), connect_to=URL(core))
    assert str(origin.base) == base
    assert origin.authority == authority
    assert origin.server_name == URL(url).host


async def test_host_header_is_sent_once_and_is_the_name_of_the_certificate(certificates: Certificates) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.good)) as server:
        tls = trusting(certificates)
        asked = await ask(pryv(url_of(server, "core.example.com"), host_header=f"{HOST}:1234", **tls))
        assert asked.reply is not None
        assert server.requests[0].headers["host"] == f"{HOST}:1234"
        asked = await ask(pryv(url_of(server, "127.0.0.1"), host_header="wrong.example.com", **tls))
        assert asked.reason == Reason.TLS
        asked = await ask(
            pryv(url_of(server), host_header="wrong.example.com", **trusting(certificates, server_name=HOST))
        )
        assert asked.reply is not None
    sent = await raw_request({"host_header": "x.example.com"})
    assert re.findall(r"(?im)^host: (.*)\r$", sent) == ["x.example.com"]


async def test_host_header_is_not_said_to_another_host() -> None:
    async with probing(pryv("https://a.example.com", host_header="x.example.com")) as http:
        assert http.origin(URL("https://a.example.com/")).authority == "x.example.com"
        assert http.origin(URL("https://reg.example.com/")).authority is None


@pytest.mark.parametrize(("protocol", "reached"), [("any", True), ("ip4", True), ("ip6", False)])
async def test_ip_protocol_chooses_the_family(protocol: str, reached: bool) -> None:
    async with Server(lambda _: OK) as server:
        families = []

        class Watched(Lookups):
            async def addresses(self, host: str, family: int) -> list[tuple[str, int]]:
                families.append(family)
                if family == socket.AF_INET6:
                    raise socket.gaierror(socket.EAI_NONAME, "no such address")
                return [("127.0.0.1", int(socket.AF_INET))]

        asked = await ask(pryv(url_of(server, "localhost"), ip_protocol=protocol), lookups=Watched())
        assert (asked.reply is not None) is reached
        assert families == [http_module.FAMILIES[protocol]]


# Proxies


@dataclass
class Proxy:
    """A proxy that sends every request to one port, or answers with `refusal`."""

    port_behind: int = 0
    refusal: bytes = b""
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(first.decode())
        if self.refusal:
            writer.write(self.refusal if self.refusal != b"-" else b"")
        elif first.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await relay(self.port_behind, 0, reader, writer)
        else:
            writer.write(head("Content-Length: 2") + b"{}")


SECRETS: dict[str, Any] = {
    "basic_auth": {"username": "gateway", "password": "gateway-password"},
    "headers": {"X-Key": "secret-header"},
}


async def test_a_pinned_request_through_a_proxy_is_still_checked_against_the_name(certificates: Certificates) -> None:
    context = certificates.server(certificates.good)
    said: list[str | None] = []
    context.sni_callback = lambda _, name, __: said.append(name)
    async with Server(lambda _: OK, context) as server:
        proxy = Proxy(server.port)
        async with serving(proxy.serve) as port:
            keys = {"proxy_url": f"http://127.0.0.1:{port}", **trusting(certificates)}
            core = f"https://core.example.com:{server.port}"
            asked = await ask(pryv(f"https://{HOST}:{server.port}", **keys), connect_to=core)
            assert asked.reply is not None
            assert said == [HOST]
            assert server.requests[0].headers["host"] == f"{HOST}:{server.port}"
            assert proxy.heads[0].startswith(f"CONNECT core.example.com:{server.port} HTTP/1.1\r\n")
            assert asked.report.phases.keys() == {"connect", "tls", "processing", "transfer"}
            asked = await ask(pryv(f"https://other.example.com:{server.port}", **keys), connect_to=core)
            assert asked.reason == Reason.TLS
            assert asked.expiry is not None
            assert len(server.requests) == 1


@pytest.mark.parametrize("auth", [None, "user:pass:word"])
async def test_a_tunnel_shows_the_proxy_its_own_credentials_and_none_of_the_target(
    certificates: Certificates, auth: str | None
) -> None:
    async with Server(lambda _: OK, certificates.server(certificates.good)) as server:
        proxy = Proxy(server.port)
        async with serving(proxy.serve) as port:
            keys = {"proxy_url": f"http://127.0.0.1:{port}", "proxy_auth": auth, **SECRETS}
            await ask(pryv(url_of(server, HOST), **keys, **trusting(certificates)))
            await ask(pryv(url_of(server, HOST), **keys))
        target = server.requests[0].headers
    assert target["x-key"] == "secret-header"
    assert target["authorization"] == "Basic " + base64.b64encode(b"gateway:gateway-password").decode()
    assert "proxy-authorization" not in target
    assert len(proxy.heads) == 3
    for sent in proxy.heads:
        assert re.findall(r"(?im)^(?:authorization|x-key): .*$", sent) == []
        basic = "Basic " + base64.b64encode(b"user:pass:word").decode()
        assert re.findall(r"(?im)^proxy-authorization: (.*)\r$", sent) == ([basic] if auth else [])
        assert re.findall(r"(?im)^user-agent: (.*)\r$", sent) == ["tests/1"]


@pytest.mark.parametrize("auth", [None, "user:pass"])
async def test_plain_http_goes_through_the_proxy_with_both_credentials(auth: str | None) -> None:
    proxy = Proxy()
    async with serving(proxy.serve) as port:
        keys = {"proxy_url": f"http://127.0.0.1:{port}", "proxy_auth": auth, **SECRETS}
        asked = await ask(pryv("http://api.example.com", **keys))
    assert asked.reply is not None
    (sent,) = proxy.heads
    assert sent.startswith("GET http://api.example.com/x HTTP/1.1\r\n")
    assert re.findall(r"(?im)^host: (.*)\r$", sent) == ["api.example.com"]
    basic = [base64.b64encode(b"gateway:gateway-password").decode()]
    assert re.findall(r"(?im)^authorization: Basic (.*)\r$", sent) == basic
    own = [base64.b64encode(b"user:pass").decode()] if auth else []
    assert re.findall(r"(?im)^proxy-authorization: Basic (.*)\r$", sent) == own


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", Reason.CONNECT),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", Reason.CONNECT),
        (b"-", Reason.DISCONNECT),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(refusal: bytes, reason: Reason) -> None:
    proxy = Proxy(refusal=refusal)
    async with serving(proxy.serve) as port:
        asked = await ask(pryv("https://api.example.com", proxy_url=f"http://127.0.0.1:{port}"))
    assert asked.reason == reason
    assert asked.report.status is None
    assert len(proxy.heads) == 1


async def test_a_proxy_that_cannot_be_reached() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert (await ask(pryv("https://api.example.com", proxy_url=proxy))).reason == Reason.CONNECT
    asked = await ask(pryv("https://127.0.0.1:1", proxy_url="http://unknown.example.com:3128"))
    assert asked.reason == Reason.DNS
    assert asked.lookup_seconds is not None


async def test_no_proxy_asks_directly() -> None:
    async with Server(lambda _: OK) as server:
        keys = {"proxy_url": "http://127.0.0.1:1", "no_proxy": ["127.0.0.0/8"]}
        assert (await ask(pryv(url_of(server), **keys))).reply is not None


async def test_no_proxy_is_asked_about_the_host_of_the_request_not_that_of_the_target() -> None:
    async with Server(lambda _: OK) as server:
        target = pryv("http://elsewhere.example.com", proxy_url="http://127.0.0.1:1", no_proxy=["127.0.0.1"])
        async with probing(target) as http:
            origin = http.origin(URL(url_of(server)))
            assert (await http.ask(CheckReport("test"), "GET", origin, "/x")).status == 200


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await reply_to(OK)).reply is not None


# Lookups


class Resolver:
    """Stands for the system's: each name waits for its event, then gives its answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on: dict[str, threading.Event] = {}
        self.answers: dict[str, list[Any] | Exception] = {}
        self.asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def name(self, name: str, answer: list[Any] | Exception) -> None:
        self.go_on[name], self.answers[name] = threading.Event(), answer

    def getaddrinfo(self, host: str, *_: object, **__: object) -> list[Any]:
        self.asked.append(host)
        self.go_on[host].wait(5)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return answer


ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))
FOUND = [("192.0.2.1", int(socket.AF_INET))]


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Resolver]:
    resolver = Resolver(monkeypatch)
    resolver.name("a", [ADDRESS, ADDRESS])
    resolver.name("b", [ADDRESS])
    resolver.name("bad", socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    resolver.name("wrong", UnicodeError("label too long"))
    yield resolver
    for event in resolver.go_on.values():
        event.set()
    await until(lambda: not lookup_threads())
    await asyncio.sleep(0)
    gc.collect()


def lookup_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("lookup"))


async def test_one_lookup_of_a_name_serves_all_who_wait(resolver: Resolver) -> None:
    lookups = Lookups()
    waiting = [asyncio.create_task(lookups.addresses("a", 0)) for _ in range(5)]
    await until(lambda: resolver.asked)
    assert lookup_threads() == ["lookup a"]
    resolver.go_on["a"].set()
    assert await asyncio.gather(*waiting) == [FOUND] * 5
    assert resolver.asked == ["a"]
    assert await lookups.addresses("a", 0) == FOUND
    assert resolver.asked == ["a", "a"]


async def test_families_of_a_name_are_looked_up_apart(resolver: Resolver) -> None:
    lookups = Lookups()
    resolver.go_on["a"].set()
    await asyncio.gather(lookups.addresses("a", socket.AF_INET), lookups.addresses("a", socket.AF_INET6))
    assert resolver.asked == ["a", "a"]


async def test_a_hung_lookup_delays_no_other_name_and_holds_one_thread(resolver: Resolver) -> None:
    lookups = Lookups()
    hung = [asyncio.create_task(lookups.addresses("a", 0)) for _ in range(50)]
    await until(lambda: resolver.asked)
    resolver.go_on["b"].set()
    async with asyncio.timeout(2):
        assert await lookups.addresses("b", 0) == FOUND
    for task in hung:
        task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    again = asyncio.create_task(lookups.addresses("a", 0))
    await until(lambda: lookup_threads() == ["lookup a"])
    resolver.go_on["a"].set()
    assert await again == FOUND
    assert resolver.asked.count("a") == 1


@pytest.mark.parametrize(("name", "kind"), [("bad", socket.gaierror), ("wrong", UnicodeError)])
async def test_a_failed_lookup_reaches_all_who_wait(resolver: Resolver, name: str, kind: type[Exception]) -> None:
    lookups = Lookups()
    waiting = [asyncio.create_task(lookups.addresses(name, 0)) for _ in range(3)]
    await until(lambda: resolver.asked)
    resolver.go_on[name].set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [kind] * 3
    assert resolver.asked == [name]


async def test_a_failure_that_nobody_waits_for_any_more_is_silent(resolver: Resolver) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    lookups = Lookups()
    task = asyncio.create_task(lookups.addresses("bad", 0))
    await until(lambda: resolver.asked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    resolver.go_on["bad"].set()
    await until(lambda: not lookups._under_way)
    del task
    gc.collect()
    assert not complaints


def test_a_lookup_may_outlive_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    resolver = Resolver(monkeypatch)
    resolver.name("a", [ADDRESS])

    async def begin() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await Lookups().addresses("a", 0)

    asyncio.run(begin())
    resolver.go_on["a"].set()
    for thread in threading.enumerate():
        if thread.name.startswith("lookup"):
            thread.join(5)
    assert not failures


async def test_a_cancelled_lookup_takes_no_answer(resolver: Resolver) -> None:
    lookups = Lookups()
    task = asyncio.create_task(lookups.addresses("a", 0))
    await until(lambda: resolver.asked)
    next(iter(lookups._under_way.values())).cancel()
    await asyncio.gather(task, return_exceptions=True)
    resolver.go_on["a"].set()
    await until(lambda: not lookup_threads())
    assert not lookups._under_way


async def test_a_system_without_a_thread_to_spare_is_a_failed_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookups = Lookups()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread"):
            await lookups.addresses("a", 0)
    await asyncio.sleep(0)
    assert not lookups._under_way


async def test_the_system_knows_localhost() -> None:
    assert ("127.0.0.1", int(socket.AF_INET)) in await Lookups().addresses("localhost", socket.AF_UNSPEC)


async def test_a_hung_request_ends_with_the_probe() -> None:
    async with Server(lambda _: Hang()) as server:
        target = pryv(url_of(server))
        async with probing(target) as http:
            task = asyncio.create_task(http.ask(CheckReport("a"), "GET", http.origin(target.address), "/"))
            await until(lambda: server.requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: server.connections == 0)
