"""The simulators, held to what was measured on the real servers."""

import asyncio
import contextlib
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
import trustme

from health_exporter.simulators.dns import DnsServer, Mode
from health_exporter.simulators.pryv import PryvCore, PryvDeployment
from health_exporter.simulators.wire import Answer, Close, Hang, Raw, Reply, Request, Reset, Server

TOKEN = "simulated-read-token"
USER = "/healthmetrics01"
EVENTS = f"{USER}/events?limit=1"
ACCESS = f"{USER}/access-info"
SERIES = f"{USER}/events/nonexistent/series"
CHECK = "/reg/healthmetrics01/check_username"
CHECK_UNKNOWN = "/reg/nosuchuser01/check_username"
HOSTINGS = "/reg/hostings"
CORES = "/reg/cores?username=healthmetrics01"
SILENT = 0.05


@dataclass(frozen=True)
class Got:
    """What came back: `status` is the status, or how there was none."""

    status: int | str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.headers]

    def header(self, name: str) -> str | None:
        return next((value for given, value in self.headers if given.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    server: Server, target: str, method: str = "GET", *, token: str | None = TOKEN, host: str = "127.0.0.1", **more: str
) -> Got:
    """Ask over a connection of its own and read the raw answer."""
    headers = {"Host": host, "Connection": "close"} | ({} if token is None else {"Authorization": token}) | more
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return await send(server, f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())


async def send(server: Server, data: bytes) -> Got:
    try:
        reader, writer = await asyncio.open_connection(server.host, server.port)
    except ConnectionRefusedError:
        return Got("refused")
    try:
        writer.write(data)
        raw = await asyncio.wait_for(reader.read(1), SILENT) + await reader.read()
    except TimeoutError:
        return Got("silent")
    except ConnectionResetError:
        return Got("reset")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return parse(raw) if raw else Got("closed")


def parse(raw: bytes) -> Got:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    got = Got(int(first.split(" ")[1]), tuple((name, value) for name, _, value in (x.partition(": ") for x in lines)))
    if got.header("Transfer-Encoding") == "chunked" and body:
        size, _, rest = body.partition(b"\r\n")
        body = rest[: int(size, 16)]
        assert rest[len(body) :] == b"\r\n0\r\n\r\n"
    return Got(got.status, got.headers, body)


async def until(condition: Any) -> None:
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 - tiny polling of what has no event
            await asyncio.sleep(0.002)


@pytest.fixture
async def core() -> AsyncIterator[PryvCore]:
    async with PryvCore() as core:
        yield core


@pytest.fixture
async def cores() -> AsyncIterator[PryvDeployment]:
    async with PryvDeployment("mc.pryv.test") as cores:
        yield cores


# The wire.


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_turn() -> None:
    async def slow(request: Request) -> Reply:
        await asyncio.sleep(0)
        return Answer(200, (("X-Case", "Kept"),), request.path.encode())

    async with Server(lambda r: slow(r) if r.path == "/slow" else Answer(204)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /slow?a=1&b HTTP/1.1\r\nHost: x\r\nX-Upper: Y\r\n\r\n" * 2 + b"GET /now HTTP/1.1\r\n\r\n")
        for _ in range(2):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 200 OK\r\nX-Case: Kept\r\nDate: ")
            assert head.endswith("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\r\n")
            assert await reader.readexactly(5) == b"/slow"
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 No Content\r\nDate: ")
        assert (server.accepted, server.connections, len(server.requests)) == (1, 1, 3)
        assert server.requests[0].query == {"a": "1", "b": ""}
        assert server.requests[0].headers == {"host": "x", "x-upper": "Y"}
        writer.close()
        await writer.wait_closed()
        await until(lambda: server.connections == 0)


async def test_a_body_is_read_whole_however_it_arrives() -> None:
    async with Server(lambda request: Answer(200, (), request.body)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for piece in (b"POST / HTTP/1.1\r\nConte", b"nt-Length: 4\r\nConnection: close\r\n\r", b"\nab", b"cd"):
            writer.write(piece)
            await asyncio.sleep(0.001)
        assert (await reader.read()).endswith(b"Connection: close\r\nContent-Length: 4\r\n\r\nabcd")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"x" * 70000,
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
)
async def test_a_malformed_request_closes_the_connection(data: bytes) -> None:
    async with Server(lambda _: Answer(200)) as server:
        assert (await send(server, data)).status in ("closed", "reset")
        assert not server.requests


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Hang(), "silent"),
        (Close(), "closed"),
        (Reset(), "reset"),
        (Raw(b"HTTP/1.1 299 Odd\r\nA: b\r\n\r\n"), 299),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Reset()), "reset"),
    ],
)
async def test_a_handler_may_hang_close_reset_or_send_any_bytes(reply: Reply, status: int | str) -> None:
    async with Server(lambda _: reply) as server:
        assert (await ask(server, "/")).status == status
        await until(lambda: server.connections == 0)


async def test_head_gets_the_length_and_no_body() -> None:
    async with Server(lambda _: Answer(200, (), b"body")) as server:
        got = await ask(server, "/", "HEAD")
        assert (got.header("Content-Length"), got.body) == ("4", b"")


async def test_refusing_drops_connections_and_listening_again_takes_the_same_port() -> None:
    async with Server(lambda _: Hang()) as server:
        port = server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: server.requests)
        await server.refuse()
        assert (await reader.read(), server.connections) == (b"", 0)
        assert (await ask(server, "/")).status == "refused"
        await server.listen()
        server.handler = lambda _: Answer(200)
        assert ((await ask(server, "/")).status, server.port) == (200, port)
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_leaves_or_a_server_that_stops_ends_a_slow_answer() -> None:
    ended = []

    async def slow(_: Request) -> Reply:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        raise AssertionError

    async with Server(slow) as server:
        assert (await ask(server, "/")).status == "silent"
        await until(lambda: len(ended) == 1)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: len(server.requests) == 2)
    assert (len(ended), server.connections, len(asyncio.all_tasks())) == (2, 0, 1)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_an_idle_connection_is_closed() -> None:
    async with Server(lambda _: Answer(200), keep_alive=0.01) as server:
        got = await send(server, b"GET / HTTP/1.1\r\n\r\n")
        assert (got.status, server.connections) == (200, 0)


async def test_over_tls_plain_http_is_closed_without_a_byte() -> None:
    authority = trustme.CA()
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(trusting)
    async with PryvCore(ssl=context) as core:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", core.server.port, ssl=trusting, server_hostname="localhost"
        )
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert parse(await reader.read()).status == 200
        writer.close()
        await writer.wait_closed()
        assert (await ask(core.server, "/")).status in ("closed", "reset")
        assert core.url.startswith("https://")


# Pryv: one row of the measurements each.

GENERIC = "An unexpected error occurred. Our bad!"
PG_DOWN = "Unexpected error: connect ECONNREFUSED"


@pytest.mark.parametrize(
    ("faults", "method", "target", "status", "contains"),
    [
        ({}, "GET", "/", 200, '"cheersFrom":"Pryv API"'),
        ({}, "GET", "/metrics", 200, '"cheersFrom":"Pryv API"'),
        ({}, "GET", "/reg/service/info", 200, '"features":{"contentQueries":true},"version"'),
        ({}, "GET", f"{USER}/service/info", 200, '"name":"Simulated Pryv"'),
        ({}, "GET", "/service/info", 404, 'Unknown user \\"service\\"'),
        ({}, "GET", CHECK, 200, '"reserved":true'),
        ({}, "GET", CHECK_UNKNOWN, 200, '"reserved":false'),
        ({}, "GET", "/reg/ab/check_username", 400, '"code":"username-invalid"'),
        ({}, "GET", "/reg/HealthMetrics01/check_username", 400, '"code":"username-invalid"'),
        ({}, "GET", f"{USER}/check_username", 404, '"message":"Unknown resource "'),
        ({}, "GET", "/reg/apps", 404, 'Unknown user \\"reg\\"'),
        ({}, "GET", "/system/status", 404, '"message":"Unknown resource "'),
        ({}, "GET", HOSTINGS, 200, '"hostings":{"default":{"name":"Default","available":true,"availableCore":"http'),
        ({}, "GET", CORES, 200, '/healthmetrics01/"}'),
        ({}, "GET", "/reg/cores?username=nosuchuser01", 404, 'Unknown user \\"nosuchuser01\\"'),
        ({}, "GET", "/reg/cores", 400, "query parameter"),
        ({}, "GET", "/reg/healthmetrics01@example.com/check_email", 409, '"item-already-exists"'),
        ({}, "GET", EVENTS, 200, '{"events":[], "meta": {"apiVersion":"2.0.0-pre.4","serverTime":'),
        ({}, "GET", f"{USER}/events?limit=abc", 400, '"path":"#/limit"'),
        ({}, "GET", f"{USER}/eventz", 404, '"message":"Unknown resource "'),
        ({}, "GET", "/nosuchuser01/events?limit=1", 404, 'Unknown user \\"nosuchuser01\\"'),
        ({}, "GET", SERIES, 404, '{"error":{"id":"unknown-resource","message":"Unknown event \\"nonexistent\\""}}'),
        ({}, "GET", "/nosuchuser01/events/x/series", 404, '{"error":{"id":"unknown-resource","message":"Unknown user'),
        ({}, "OPTIONS", SERIES, 200, "OK"),
        ({}, "OPTIONS", "/nosuchuser01/anything", 200, "OK"),
        ({"token_level": "none"}, "GET", EVENTS, 200, '"events":[]}'),
        ({"token_level": "none", "events_table": "broken"}, "GET", EVENTS, 200, '"events":[]}'),
        ({"personal_token": True}, "GET", EVENTS, 200, '{"events":[{"id":":_system:attachedFiles"'),
        ({"personal_token": True}, "GET", ACCESS, 200, '"type":"personal","name":"pryv-metrics","id"'),
        ({"token": "revoked"}, "GET", EVENTS, 403, '"id":"invalid-access-token"'),
        ({"token": "revoked"}, "GET", SERIES, 404, "Unknown event"),
        ({"token": "expired"}, "GET", EVENTS, 403, '"id":"forbidden","message":"Access has expired."'),
        ({"token_expires": 1.5}, "GET", ACCESS, 403, "Access has expired."),
        ({"token_expires": 4e9}, "GET", ACCESS, 200, '"expires":4000000000.0,"created"'),
        ({"account": "deleted"}, "GET", EVENTS, 404, "Unknown user"),
        ({"account": "deleted"}, "GET", CHECK, 200, '"reserved":false'),
        ({"account": "deleted"}, "GET", SERIES, 404, "Unknown user"),
        ({"postgres": "refused"}, "GET", "/", 200, "cheersFrom"),
        ({"postgres": "refused"}, "GET", f"{USER}/service/info", 200, '"version"'),
        ({"postgres": "refused"}, "GET", EVENTS, 500, GENERIC),
        ({"postgres": "refused"}, "GET", ACCESS, 500, GENERIC),
        ({"postgres": "refused"}, "GET", CHECK_UNKNOWN, 500, PG_DOWN),
        ({"postgres": "refused"}, "GET", HOSTINGS, 500, PG_DOWN),
        ({"postgres": "refused"}, "GET", SERIES, 500, '{"error":{"id":"Error: connect ECONNREFUSED'),
        ({"postgres": "refused"}, "OPTIONS", SERIES, 200, "OK"),
        ({"postgres": "frozen"}, "GET", EVENTS, "silent", ""),
        ({"postgres": "frozen"}, "GET", SERIES, "silent", ""),
        ({"postgres": "frozen"}, "OPTIONS", SERIES, 200, "OK"),
        ({"events_table": "broken"}, "GET", EVENTS, 500, 'relation \\"events\\" does not exist'),
        ({"events_table": "broken"}, "GET", ACCESS, 200, '"level":"read"'),
        ({"events_table": "locked"}, "GET", EVENTS, "silent", ""),
        ({"events_table": "locked", "lock_seconds": 0.01}, "GET", EVENTS, 200, '{"events":[], "meta": {'),
        ({"audit": "broken"}, "GET", EVENTS, 200, '"events"'),
        ({"platform": "refused"}, "GET", HOSTINGS, 500, "Unexpected error: fetch failed"),
        ({"platform": "refused"}, "GET", CORES, 500, "Unexpected error: fetch failed"),
        ({"platform": "refused"}, "GET", EVENTS, 200, '"events"'),
        ({"platform": "refused"}, "GET", CHECK_UNKNOWN, 200, '"reserved":false'),
        ({"platform": "refused"}, "GET", SERIES, 404, "Unknown event"),
        ({"platform": "hanging"}, "GET", HOSTINGS, "silent", ""),
        ({"platform": "hanging"}, "GET", EVENTS, 200, '"events"'),
        ({"api_worker": "dead"}, "GET", "/", "refused", ""),
        ({"api_worker": "frozen"}, "GET", "/", "silent", ""),
        ({"api_worker": "frozen"}, "GET", SERIES, 404, "Unknown event"),
        ({"api_worker": "frozen"}, "OPTIONS", SERIES, 200, "OK"),
        ({"hfs_worker": "dead"}, "OPTIONS", SERIES, 502, '"message":"HFS upstream unreachable"}}'),
        ({"hfs_worker": "dead"}, "GET", EVENTS, 200, '"events"'),
        ({"hfs_worker": "off"}, "GET", SERIES, 502, '"message":"HFS upstream unreachable"}}'),
        ({"hfs_worker": "off"}, "GET", "/reg/service/info", 200, '{"contentQueries":true,"noHF":true}'),
        ({"hfs_worker": "frozen"}, "OPTIONS", SERIES, "silent", ""),
        ({"hfs_worker": "frozen"}, "GET", SERIES, "silent", ""),
        ({"hfs_worker": "stuck"}, "OPTIONS", SERIES, 200, "OK"),
        ({"hfs_worker": "stuck"}, "GET", SERIES, "silent", ""),
        ({"hfs_worker": "dead", "proxy": "nginx"}, "OPTIONS", SERIES, 502, "<center>nginx"),
        ({"hfs_worker": "frozen", "proxy": "nginx"}, "OPTIONS", SERIES, 504, "504 Gateway Time-out"),
        ({"proxy": "nginx"}, "GET", EVENTS, 200, '"events"'),
        ({"proxy": "login_page"}, "GET", CHECK, 200, "<title>Sign in</title>"),
        ({"proxy": "redirect"}, "OPTIONS", SERIES, 302, ""),
        ({"proxy": "rate_limit"}, "GET", EVENTS, 429, "Too Many Requests"),
        ({"proxy": "garbage"}, "GET", "/", 200, '{"meta": {'),
        ({"reset_mid_answer": True}, "GET", EVENTS, "reset", ""),
    ],
)
async def test_a_core_answers_as_measured(
    *, core: PryvCore, faults: dict[str, object], method: str, target: str, status: int | str, contains: str
) -> None:
    for name, value in faults.items():
        setattr(core.faults, name, value)
    got = await ask(core.server, target, method)
    assert (got.status, contains in got.body.decode()) == (status, True), got
    if got.status != "refused":
        assert core.server.requests[-1].target == target


API_HEADERS = [
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Headers",
    "Access-Control-Expose-Headers",
    "Access-Control-Max-Age",
    "Access-Control-Allow-Credentials",
    "API-Version",
]
KNOWN = ["Pryv-Access-Id"]
FRAMED = ["Content-Type", "Content-Length", "ETag", "Date", "Connection"]
STREAMED = ["Content-Type", "Date", "Connection", "Transfer-Encoding"]


@pytest.mark.parametrize(
    ("faults", "method", "target", "token", "names"),
    [
        ({}, "GET", "/", None, API_HEADERS + FRAMED),
        ({}, "GET", EVENTS, TOKEN, API_HEADERS + KNOWN + STREAMED),
        ({}, "HEAD", EVENTS, TOKEN, API_HEADERS + KNOWN + STREAMED[:-1]),
        ({}, "GET", EVENTS, "wrong", API_HEADERS + FRAMED),
        ({}, "GET", f"{USER}/events?limit=abc", TOKEN, API_HEADERS + KNOWN + FRAMED),
        ({"token_level": "none"}, "GET", EVENTS, TOKEN, API_HEADERS + KNOWN + FRAMED),
        ({"token": "expired"}, "GET", EVENTS, TOKEN, API_HEADERS + KNOWN + FRAMED),
        ({"events_table": "broken"}, "GET", EVENTS, TOKEN, API_HEADERS + KNOWN + FRAMED),
        ({"postgres": "refused"}, "GET", EVENTS, TOKEN, API_HEADERS + FRAMED),
        ({}, "OPTIONS", EVENTS, None, API_HEADERS + FRAMED),
        ({}, "OPTIONS", SERIES, None, [name.lower() for name in API_HEADERS + FRAMED]),
        ({}, "GET", SERIES, TOKEN, [name.lower() for name in API_HEADERS + FRAMED]),
        ({"proxy": "nginx"}, "GET", SERIES, TOKEN, API_HEADERS + FRAMED),
        ({"hfs_routing": "api"}, "GET", SERIES, TOKEN, API_HEADERS + KNOWN + FRAMED),
        ({"hfs_worker": "dead"}, "GET", SERIES, TOKEN, ["content-type", "Date", "Connection", "Transfer-Encoding"]),
    ],
)
async def test_headers_have_the_measured_names_case_and_order(
    *, core: PryvCore, faults: dict[str, object], method: str, target: str, token: str | None, names: list[str]
) -> None:
    for name, value in faults.items():
        setattr(core.faults, name, value)
    assert (await ask(core.server, target, method, token=token)).names == names


async def test_bodies_say_meta_first_last_or_not_at_all_and_carry_express_etags(core: PryvCore) -> None:
    assert list((await ask(core.server, CHECK)).json) == ["meta", "reserved"]
    assert list((await ask(core.server, EVENTS)).json) == ["events", "meta"]
    assert list((await ask(core.server, EVENTS, token="wrong")).json) == ["error", "meta"]
    assert list((await ask(core.server, SERIES, token="wrong")).json) == ["error"]
    assert (await ask(core.server, EVENTS)).header("Content-Type") == "application/json"
    assert (await ask(core.server, CHECK)).header("Content-Type") == "application/json; charset=utf-8"
    # Both tags as recorded from the real server.
    assert (await ask(core.server, SERIES, "OPTIONS")).header("ETag") == 'W/"2-nOO9QiTIwXgNtWtBJezz8kv3SLc"'
    assert (await ask(core.server, SERIES)).header("ETag") == 'W/"4d-zMRA16pju2kvv5xApbFwXYpnlw0"'


async def test_the_greeting_is_text_for_a_browser(core: PryvCore) -> None:
    got = await ask(core.server, "/", Accept="text/html")
    assert (got.header("Content-Type"), got.body[:27]) == ("text/html; charset=utf-8", b"# Cheers from the Pryv API!")


async def test_the_origin_is_echoed(core: PryvCore) -> None:
    got = await ask(core.server, EVENTS, "OPTIONS", Origin="https://app.example")
    assert got.header("Access-Control-Allow-Origin") == "https://app.example"


@pytest.mark.parametrize(
    ("token", "query", "status", "series", "error_id"),
    [
        (TOKEN, "", 200, 404, None),
        (f"Bearer {TOKEN}", "", 200, 404, None),
        (f"Basic {b64encode(f'{TOKEN}:'.encode()).decode()}", "", 200, 404, None),
        (None, f"&auth={TOKEN}", 200, 404, None),
        (None, "", 401, 401, "invalid-access-token"),
        ("", "", 403, 403, "invalid-access-token"),
        ("wrong", "", 403, 403, "invalid-access-token"),
        ("Basic ?", "", 403, 403, "invalid-access-token"),
    ],
)
async def test_a_token_may_come_in_four_ways(
    *, core: PryvCore, token: str | None, query: str, status: int, series: int, error_id: str | None
) -> None:
    got = await ask(core.server, EVENTS + query, token=token)
    assert (got.status, got.json.get("error", {}).get("id")) == (status, error_id)
    got = await ask(core.server, f"{SERIES}?{query}", token=token)
    assert (got.status, got.json["error"]["id"] == "missing-header") == (series, series == 401)


async def test_access_info_holds_the_token_and_the_recorded_permissions(core: PryvCore) -> None:
    info = (await ask(core.server, ACCESS)).json
    assert (info["type"], info["token"], info["user"]) == ("shared", TOKEN, {"username": "healthmetrics01"})
    assert {"streamId": ":_system:account", "level": "none"} in info["permissions"]
    assert {"level": "read", "streamId": "*"} in info["permissions"]
    assert "expires" not in info
    core.faults.token_level = "none"
    assert (await ask(core.server, ACCESS)).json["permissions"] == []


async def test_server_time_follows_the_clock_offset_in_milliseconds(core: PryvCore) -> None:
    core.faults.clock_offset = 3600
    server_time = (await ask(core.server, "/")).json["meta"]["serverTime"]
    assert abs(server_time - time.time() - 3600) < 5
    assert server_time == round(server_time, 3)


async def test_a_user_once_seen_stays_reserved_while_postgres_is_down_until_the_worker_restarts(core: PryvCore) -> None:
    assert (await ask(core.server, CHECK)).json["reserved"] is True
    assert (await ask(core.server, CHECK_UNKNOWN)).json["reserved"] is False
    for down, status in (("refused", 500), ("frozen", "silent")):
        setattr(core.faults, "postgres", down)  # noqa: B010
        assert (await ask(core.server, CHECK)).json["reserved"] is True
        assert (await ask(core.server, CHECK_UNKNOWN)).status == status
    core.faults.postgres = "refused"
    core.restart_api()
    assert (await ask(core.server, CHECK)).status == 500


async def test_a_fresh_hfs_worker_that_meets_a_dead_postgres_hangs_until_restarted(core: PryvCore) -> None:
    core.faults.postgres = "refused"
    assert (await ask(core.server, SERIES)).status == 500
    core.faults.postgres = "up"
    assert (await ask(core.server, SERIES)).status == 404, "a warm worker recovers"
    core.restart_hfs()
    core.faults.postgres = "refused"
    assert (await ask(core.server, SERIES)).json == {"error": {"id": "Error: connect ECONNREFUSED 127.0.0.1:5432"}}
    core.faults.postgres = "up"
    for _ in range(2):
        assert (await ask(core.server, SERIES)).status == "silent"
        assert (await ask(core.server, SERIES, "OPTIONS")).status == 200
    core.restart_hfs()
    assert (await ask(core.server, SERIES)).status == 404


async def test_the_hfs_accepts_a_revoked_token_until_restarted(core: PryvCore) -> None:
    core.faults.token = "revoked"
    assert (await ask(core.server, SERIES)).status == 404
    core.restart_hfs()
    assert (await ask(core.server, SERIES)).status == 403


@pytest.mark.parametrize(("host", "message"), [("pryvhost.example.com", "resource "), ("api.example.com", "event")])
async def test_the_hfs_takes_a_host_that_looks_like_a_user_name_for_one(
    core: PryvCore, host: str, message: str
) -> None:
    assert f"Unknown {message}" in (await ask(core.server, SERIES, host=host)).json["error"]["message"]
    assert (await ask(core.server, SERIES, "OPTIONS", host=host)).status == 200
    assert (await ask(core.server, EVENTS, host=host)).status == 200


async def test_a_refused_token_kills_the_worker_whose_audit_is_broken(core: PryvCore) -> None:
    core.faults.audit, core.faults.restart_seconds = "broken", 0.05
    assert (await ask(core.server, CHECK)).status == 200
    assert (await ask(core.server, EVENTS, token="wrong")).status == "closed"
    assert (await ask(core.server, EVENTS)).status == "refused"
    async with asyncio.timeout(2):
        while (await ask(core.server, EVENTS)).status != 200:  # noqa: ASYNC110 - a restart is seen from outside
            await asyncio.sleep(0.005)
    core.faults.postgres = "refused"
    assert (await ask(core.server, CHECK)).status == 500, "the new worker has not seen the user"


async def test_a_dead_worker_refuses_and_comes_back_on_the_same_port(core: PryvCore) -> None:
    core.faults.api_worker = "dead"
    assert (await ask(core.server, "/")).status == "refused"
    core.faults.api_worker = "up"
    assert (await ask(core.server, "/")).status == 200


async def test_one_of_two_frozen_workers_hangs_every_twelfth_connection(core: PryvCore) -> None:
    core.faults.api_worker = "one_of_two_frozen"
    got = [(await ask(core.server, "/")).status for _ in range(24)]
    assert got == ([200] * 11 + ["silent"]) * 2


# Several cores.


async def test_another_cores_user_is_misdirected_without_meta(cores: PryvDeployment) -> None:
    a, b = cores.cores.values()
    for target in ("/userb01/events?limit=1", "/userb01/access-info", "/userb01/service/info"):
        got = await ask(a.server, target, token=b.token)
        assert (got.status, list(got.json), got.header("Location")) == (421, ["error"], None)
        assert (got.json["error"]["id"], got.json["error"]["coreUrl"]) == ("wrong-core", f"{b.url}/")
    assert (await ask(a.server, "/events", token=b.token, host="userb01.mc.pryv.test")).status == 421
    assert 'Unknown user "userb01"' in (await ask(a.server, "/userb01/events/x/series")).json["error"]["message"]
    assert (await ask(a.server, "/reg/userb01/check_username")).json["reserved"] is False
    assert (await ask(a.server, "/reg/cores?username=userb01")).json["core"] == {"url": f"{b.url}/"}
    assert (await ask(a.server, "/usera01/events", token=b.token)).status == 403


@pytest.mark.parametrize(
    ("host", "target", "status"),
    [
        ("usera01.mc.pryv.test", "/events?limit=1", 200),
        ("usera01.mc.pryv.test:8080", "/events/nonexistent/series", 404),
        ("reg.mc.pryv.test", "/usera01/check_username", 200),
        ("reg.mc.pryv.test", "/service/info", 200),
        ("core-a.mc.pryv.test", "/reg/usera01/check_username", 200),
        ("core-a.mc.pryv.test", "/usera01/events", 200),
        ("usera01.other.test", "/events?limit=1", 200),
        ("127.0.0.1", "/service/info", 200),
    ],
)
async def test_the_host_name_adds_to_the_path_under_the_domain_only(
    cores: PryvDeployment, host: str, target: str, status: int
) -> None:
    core = cores.cores["core-a"]
    got = await ask(core.server, target, token=core.token, host=host)
    assert got.status == status
    assert ("cheersFrom" in got.json) == ("other" in host)


@pytest.mark.parametrize(
    ("platform", "hostings", "events", "series"),
    [("refused", 500, 500, "silent"), ("hanging", "silent", "silent", "silent"), ("up", 200, 200, 404)],
)
async def test_several_cores_need_the_platform_for_all_but_check_username(
    cores: PryvDeployment, platform: str, hostings: int | str, events: int | str, series: int | str
) -> None:
    core = cores.cores["core-a"]
    setattr(core.faults, "platform", platform)  # noqa: B010
    asked = {
        HOSTINGS: hostings,
        "/usera01/events?limit=1": events,
        "/usera01/access-info": events,
        "/usera01/events/x/series": series,
        "/reg/usera01/check_username": 200,
        "/reg/service/info": 200,
    }
    got = {target: (await ask(core.server, target, token=core.token)).status for target in asked}
    assert got == asked


async def test_the_platform_of_several_cores_needs_no_postgres(cores: PryvDeployment) -> None:
    core = cores.cores["core-a"]
    core.faults.postgres = "refused"
    assert (await ask(core.server, HOSTINGS)).status == 200
    assert (await ask(core.server, "/usera01/events", token=core.token)).status == 500


async def test_a_fresh_hfs_worker_that_meets_a_dead_platform_hangs_until_restarted(cores: PryvDeployment) -> None:
    core, target = cores.cores["core-a"], "/usera01/events/x/series"
    core.restart_hfs()
    core.faults.platform = "refused"
    assert (await ask(core.server, target, token=core.token)).status == "silent"
    core.faults.platform = "up"
    assert (await ask(core.server, target, token=core.token)).status == "silent"
    core.restart_hfs()
    assert (await ask(core.server, target, token=core.token)).status == 404


async def test_a_stopped_core_stays_available_and_in_the_dns(cores: PryvDeployment) -> None:
    a, b = cores.cores.values()
    before = cores.records()
    await b.stop()
    cores.hostings["host-c"] = None
    got = (await ask(a.server, HOSTINGS)).json["regions"]["europe"]["zones"]["ch"]["hostings"]
    assert got["host-b"] == {"name": "Host B", "available": True, "availableCore": f"{b.url}/"}
    assert got["host-c"] == {"name": "Host C", "available": False, "availableCore": ""}
    assert (await ask(a.server, "/userb01/events")).status == 421
    assert cores.records() == before
    assert (before["userb01"], before["reg"]) == (["127.0.0.2"], ["127.0.0.1", "127.0.0.2"])


# DNS.

RECORDS = {"usera01": ["127.0.0.11"], "core": ["127.0.0.11"], "reg": ["127.0.0.12", "127.0.0.11"]}


@pytest.fixture
async def names() -> AsyncIterator[DnsServer]:
    async with DnsServer("mc.pryv.test", RECORDS) as names:
        yield names


async def resolve(names: DnsServer, name: str, rdtype: str = "A", **more: Any) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, **more)
    query.flags |= dns.flags.AD
    return await dns.asyncquery.udp(query, "127.0.0.1", timeout=SILENT, port=names.port)


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode", "answers"),
    [
        ("usera01.mc.pryv.test", "A", "NOERROR", ["127.0.0.11"]),
        ("reg.mc.pryv.test", "A", "NOERROR", ["127.0.0.12", "127.0.0.11"]),
        ("usera01.mc.pryv.test", "AAAA", "NOERROR", []),
        ("usera01.mc.pryv.test", "CNAME", "NOERROR", []),
        ("nosuchuser01.mc.pryv.test", "A", "NXDOMAIN", []),
        ("x.usera01.mc.pryv.test", "A", "NXDOMAIN", []),
        ("evilmc.pryv.test", "A", "NXDOMAIN", []),
        ("other.example.org", "A", "NXDOMAIN", []),
        ("mc.pryv.test", "A", "NOERROR", []),
        ("mc.pryv.test", "NS", "NOERROR", ["core.mc.pryv.test."]),
        ("mc.pryv.test", "SOA", "NOERROR", ["core.mc.pryv.test. REPLACE\\032ME. 1795296546 3600 600 604800 60"]),
    ],
)
async def test_dns_answers_as_measured(
    names: DnsServer, name: str, rdtype: str, rcode: str, answers: list[str]
) -> None:
    got = await resolve(names, name, rdtype)
    assert (dns.rcode.to_text(got.rcode()), [item.to_text() for one in got.answer for item in one]) == (rcode, answers)
    assert dns.flags.to_text(got.flags) == "QR RD AD"
    assert (got.authority, got.additional, got.edns) == ([], [], -1)
    assert all(one.ttl == 300 for one in got.answer)
    assert names.queries[-1] == (f"{name}.", rdtype)


async def test_dns_answers_in_lower_case_uncompressed_and_without_edns(names: DnsServer) -> None:
    got = await resolve(names, "UserA01.MC.pryv.test", use_edns=0)
    assert got.question[0].name.to_text() == "UserA01.MC.pryv.test."
    assert got.answer[0].name.to_text() == "usera01.mc.pryv.test."
    assert (got.edns, len(got.wire or b"")) == (-1, 74)


async def test_dns_copies_ad_and_follows_its_records(names: DnsServer) -> None:
    query = dns.message.make_query("new.mc.pryv.test", "A")
    names.records["new"] = ["127.0.0.9", "127.0.0.9"]
    got = await dns.asyncquery.udp(query, "127.0.0.1", timeout=1, port=names.port)
    assert dns.flags.to_text(got.flags) == "QR RD"
    assert got.answer[0][0].to_text() == "127.0.0.9"


@pytest.mark.parametrize("mode", ["nxdomain", "servfail", "refused"])
async def test_dns_fails_for_every_name(names: DnsServer, mode: Mode) -> None:
    names.mode = mode
    got = await resolve(names, "usera01.mc.pryv.test")
    assert (dns.rcode.to_text(got.rcode()).lower(), got.answer) == (mode, [])


async def test_dns_may_be_empty_truncated_or_point_elsewhere(names: DnsServer) -> None:
    names.mode = "empty"
    got = await resolve(names, "usera01.mc.pryv.test")
    assert (got.rcode(), got.answer) == (dns.rcode.NOERROR, [])
    names.mode = "truncated"
    assert (await resolve(names, "usera01.mc.pryv.test")).flags & dns.flags.TC
    names.mode = "cname"
    got = await resolve(names, "usera01.mc.pryv.test")
    assert [dns.rdatatype.to_text(one.rdtype) for one in got.answer] == ["CNAME", "A"]
    assert [one.to_text().split(" ", 1)[0] for one in got.answer] == ["usera01.mc.pryv.test.", "core.mc.pryv.test."]


async def test_dns_may_be_silent_or_answer_garbage_and_has_no_tcp(names: DnsServer) -> None:
    names.mode = "silent"
    with pytest.raises(dns.exception.Timeout):
        await resolve(names, "usera01.mc.pryv.test")
    names.mode = "garbage"
    with pytest.raises(dns.exception.DNSException):
        await resolve(names, "usera01.mc.pryv.test")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", names.port)


async def test_dns_survives_what_is_no_query(names: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for data in (b"", b"\x00", b"x" * 12, b"\x00" * 12):
            client.sendto(data, ("127.0.0.1", names.port))
    assert (await resolve(names, "usera01.mc.pryv.test")).answer
