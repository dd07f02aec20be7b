"""Asking DNS servers: which answer decides, what the others come to, and when it is asked again."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import dns.flags
import dns.message
import dns.resolver
import pytest

from collectors.dns import Answer, NameServer, addresses_of
from collectors.failures import Failure, Reason
from health_exporter.simulators.dns import DnsServer, Mode

NAME = "healthmetrics01.mc.example.com"
RECORDS = {"healthmetrics01": ["192.0.2.20", "192.0.2.10"]}


@contextlib.asynccontextmanager
async def servers(*modes: Mode) -> AsyncIterator[tuple[list[DnsServer], list[NameServer]]]:
    async with contextlib.AsyncExitStack() as stack:
        running = []
        for mode in modes:
            server = await stack.enter_async_context(DnsServer("mc.example.com", RECORDS))
            server.mode = mode
            running.append(server)
        yield running, [NameServer("127.0.0.1", server.port) for server in running]


async def outcome(name: str, given: list[NameServer], patience: float = 2.0) -> Answer | str:
    try:
        return await addresses_of(name, given, patience)
    except Failure as failure:
        return str(failure.reason)


FOUND = Answer(("192.0.2.10", "192.0.2.20"), 300)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("up", FOUND),
        ("cname", FOUND),
        ("nxdomain", "dns"),
        ("servfail", "dns"),
        ("refused", "dns"),
        ("empty", "dns"),
        ("truncated", "dns"),
        ("silent", "timeout"),
        ("garbage", "timeout"),
    ],
)
async def test_every_answer_of_a_server_has_its_outcome(mode: Mode, expected: Answer | str) -> None:
    async with servers(mode) as (running, given):
        began = time.perf_counter()
        assert await outcome(NAME, given, 0.1 if expected == "timeout" else 2.0) == expected
        assert time.perf_counter() - began < 1
        assert len(running[0].queries) == (2 if expected == "timeout" else 1)
        assert set(running[0].queries) == {(f"{NAME}.", "A")}


@pytest.mark.parametrize("name", ["unknown.mc.example.com", "healthmetrics01.elsewhere.example.com"])
async def test_an_unknown_name_has_no_address(name: str) -> None:
    async with servers("up") as (_, given):
        assert await outcome(name, given) == "dns"


async def test_a_name_without_an_a_record_has_no_address() -> None:
    async with servers("up") as (running, given):
        running[0].records["healthmetrics01"] = []
        assert await outcome(NAME, given) == "dns"


@pytest.mark.parametrize("name", ["a" * 64 + ".example.com", "a..example.com", ".".join(["a" * 60] * 6)])
async def test_a_name_dns_cannot_carry_has_no_address(name: str) -> None:
    async with servers("up") as (running, given):
        assert await outcome(name, given) == "dns"
        assert not running[0].queries


async def test_an_answer_in_another_spelling_counts() -> None:
    async with servers("up") as (running, given):
        assert await outcome(NAME.upper(), given) == FOUND
        assert running[0].queries[0][0] == f"{NAME.upper()}."


@pytest.mark.parametrize(
    ("modes", "expected", "asked"),
    [
        (("servfail", "up"), FOUND, (1, 1)),
        (("refused", "up"), FOUND, (1, 1)),
        (("silent", "up"), FOUND, (2, 1)),
        (("garbage", "up"), FOUND, (2, 1)),
        (("up", "servfail"), FOUND, (1, 0)),
        (("nxdomain", "up"), "dns", (1, 0)),
        (("empty", "up"), "dns", (1, 0)),
        (("servfail", "nxdomain", "up"), "dns", (1, 1, 0)),
        (("silent", "servfail"), "dns", (2, 1)),
        (("servfail", "silent"), "dns", (1, 2)),
        (("silent", "silent"), "timeout", (2, 2)),
    ],
)
async def test_the_first_server_that_can_tell_decides(
    modes: tuple[Mode, ...], expected: Answer | str, asked: tuple[int, ...]
) -> None:
    async with servers(*modes) as (running, given):
        assert await outcome(NAME, given, 0.1 if {"silent", "garbage"} & set(modes) else 2.0) == expected
        assert tuple(len(server.queries) for server in running) == asked


async def test_a_port_where_nothing_listens_is_a_connect_failure_and_the_next_server_is_asked() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as reserved:
        reserved.bind(("127.0.0.1", 0))
        nobody = NameServer("127.0.0.1", reserved.getsockname()[1])
    began = time.perf_counter()
    assert await outcome(NAME, [nobody]) == "connect"
    assert time.perf_counter() - began < 1
    async with servers("up", "silent") as (_, (up, silent)):
        assert await outcome(NAME, [nobody, up]) == FOUND
        assert await outcome(NAME, [nobody, silent], 0.1) == "timeout"


async def test_a_silent_server_takes_no_more_than_its_time() -> None:
    async with servers("silent") as (_, given):
        began = time.perf_counter()
        assert await outcome(NAME, given, 0.2) == "timeout"
        assert 0.18 < time.perf_counter() - began < 0.6


class Odd(asyncio.DatagramProtocol):
    """Answers every query with the datagrams that `answers` makes of it."""

    def __init__(self, server: DnsServer, mode: str) -> None:
        self.server = server
        self.mode = mode
        self.asked = 0
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        good = self.server.answer(data)
        assert good is not None
        if self.mode == "lost" and self.asked == 1:
            return
        if self.mode == "noise":
            self.transport.sendto(b"", addr)
            self.transport.sendto(bytes((data[0] ^ 1,)) + good[1:], addr)
            self.transport.sendto(good[:20], addr)
        if self.mode == "update":
            answer = dns.message.from_wire(good)
            answer.flags = (answer.flags & ~0x7800) | 5 << 11
            answer.question, answer.answer = [], []
            good = answer.to_wire()
        self.transport.sendto(good, addr)


@contextlib.asynccontextmanager
async def odd(mode: str) -> AsyncIterator[tuple[Odd, NameServer]]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Odd(DnsServer("mc.example.com", RECORDS), mode), local_addr=("127.0.0.1", 0)
    )
    try:
        yield protocol, NameServer("127.0.0.1", transport.get_extra_info("sockname")[1])
    finally:
        transport.close()
        await asyncio.sleep(0)


async def test_a_lost_packet_is_asked_again_within_the_time() -> None:
    async with odd("lost") as (server, given):
        began = time.perf_counter()
        assert await outcome(NAME, [given], 0.3) == FOUND
        assert time.perf_counter() - began < 0.3
        assert server.asked == 2


async def test_datagrams_that_are_not_the_answer_are_passed_over() -> None:
    async with odd("noise") as (server, given):
        assert await outcome(NAME, [given]) == FOUND
        assert server.asked == 1


async def test_an_answer_of_another_kind_is_none() -> None:
    async with odd("update") as (_, given):
        assert await outcome(NAME, [given], 0.1) in {"dns", "timeout"}


async def test_the_smallest_ttl_on_the_way_counts() -> None:
    class Chain(DnsServer):
        def _record(self, name: str, rdtype: str, value: str) -> dns.rrset.RRset:
            record = super()._record(name, rdtype, value)
            record.ttl = 7 if rdtype == "CNAME" else 900
            return record

    async with Chain("mc.example.com", RECORDS) as server:
        server.mode = "cname"
        answer = await addresses_of(NAME, [NameServer("127.0.0.1", server.port)], 2.0)
    assert answer == Answer(("192.0.2.10", "192.0.2.20"), 7)


async def test_an_answer_needs_no_authority() -> None:
    server = DnsServer("mc.example.com", RECORDS)
    wire = server.answer(dns.message.make_query(NAME, "A").to_wire())
    assert wire is not None
    assert not dns.message.from_wire(wire).flags & dns.flags.AA


async def test_a_server_is_asked_over_ipv6() -> None:
    server = DnsServer("mc.example.com", RECORDS)
    try:
        await server.start("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    try:
        assert await outcome(NAME, [NameServer("::1", server.port)]) == FOUND
    finally:
        await server.stop()


async def test_without_servers_those_of_the_system_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with servers("servfail", "up") as (_, given):
        for server, expected in zip(given, ("dns", FOUND), strict=True):
            system = SimpleNamespace(nameservers=[server.address], port=server.port)
            monkeypatch.setattr(dns.resolver, "Resolver", lambda system=system: system)
            assert await outcome(NAME, []) == expected


async def test_a_system_without_servers_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", none)
    assert await outcome(NAME, []) == "dns"


async def test_a_failure_names_the_server_and_no_text_of_the_answer() -> None:
    async with servers("nxdomain") as (_, given):
        with pytest.raises(Failure) as caught:
            await addresses_of(NAME, given, 2.0)
    assert caught.value.reason == Reason.DNS
    assert caught.value.detail == "NXDOMAIN from 127.0.0.1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", NameServer("192.0.2.53", 53)),
        ("192.0.2.53:5353", NameServer("192.0.2.53", 5353)),
        ("192.0.2.53:65535", NameServer("192.0.2.53", 65535)),
        ("2001:db8::1", NameServer("2001:db8::1", 53)),
        ("2001:DB8:0::1", NameServer("2001:db8::1", 53)),
        ("[2001:db8::1]", NameServer("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", NameServer("2001:db8::1", 5353)),
        ("::1", NameServer("::1", 53)),
    ],
)
def test_an_address_of_a_server_is_read(text: str, expected: NameServer) -> None:
    assert NameServer.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example.com",
        "192.0.2.53:",
        "192.0.2.53:0",
        "192.0.2.53:65536",
        "192.0.2.53:-1",
        "192.0.2.53:+53",
        "192.0.2.53:5 3",
        "192.0.2.53:\u0665\u0663",
        "192.0.2.53:" + "9" * 5000,
        "192.0.2.256",
        "192.0.2.53/24",
        "[2001:db8::1",
        "[2001:db8::1]53",
        "[2001:db8::1]:x",
        "[]",
        "2001:db8::g",
        ":53",
    ],
)
def test_what_is_no_address_of_a_server_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller says it in its own words
        NameServer.parse(text)
