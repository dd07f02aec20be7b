"""The DNS server built into a Pryv.io core: UDP only, one address record per answer, faults to switch on.

Measured on open-pryv.io 2.0.0-pre.4: no `aa`, `rd` and `ad` copied from the query, no EDNS in the answer, names written
out in full and in lower case (the question keeps its case), nothing in the authority section of an NXDOMAIN.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Literal, Self

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Mode = Literal["up", "nxdomain", "servfail", "refused", "silent", "garbage", "truncated", "empty", "cname"]

RCODES = {"nxdomain": dns.rcode.NXDOMAIN, "servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED}
SOA_VALUES = r"REPLACE\032ME. 1795296546 3600 600 604800 60"
APEX = "@"


class DnsServer:
    """The name server of `domain`, usable as an async context manager.

    `records` maps names without the domain (`@` is the domain itself) to IPv4 addresses and may change while running,
    as may `mode`. Real servers answer NXDOMAIN for every name when their platform database fails, and nothing when it
    hangs: modes `nxdomain` and `silent`. `queries` holds the last thousand as (name as asked, type).
    """

    def __init__(self, domain: str, records: Mapping[str, list[str]] | None = None, ttl: int = 300) -> None:
        self.domain = domain.rstrip(".").lower()
        self.records = dict(records or {})
        self.ttl = ttl
        self.mode: Mode = "up"
        self.port = 0
        self.queries: deque[tuple[str, str]] = deque(maxlen=1000)
        self._transport: asyncio.DatagramTransport | None = None
        self._closed: asyncio.Future[None] | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on UDP; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._closed = closed = loop.create_future()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Endpoint(self.answer, closed), local_addr=(host, port)
        )
        self.port = self._transport.get_extra_info("sockname")[1]

    async def stop(self) -> None:
        """Close the socket."""
        if self._transport and self._closed:
            self._transport.close()
            await self._closed
            self._transport = None

    async def __aenter__(self) -> Self:
        """Start on a free port of the loopback, unless it is started."""
        if not self._transport:
            await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def answer(self, data: bytes) -> bytes | None:
        """Return the answer to a query, both as datagrams; None stays silent."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return None
        if not query.question:
            return None
        name, rdtype = query.question[0].name.to_text(), query.question[0].rdtype
        self.queries.append((name, dns.rdatatype.to_text(rdtype)))
        rcode, flags, answers = dns.rcode.NOERROR, 0, list[dns.rrset.RRset]()
        if self.mode == "silent":
            return None
        if self.mode == "garbage":
            return data[:2] + b"\xff not a DNS message"
        if self.mode in RCODES:
            rcode = RCODES[self.mode]
        elif self.mode == "truncated":
            flags = dns.flags.TC
        elif self.mode != "empty":
            found = self._find(name.rstrip(".").lower(), rdtype)
            rcode, answers = (dns.rcode.NXDOMAIN, []) if found is None else (rcode, found)
        return _wire(query, rcode, answers, flags)

    def _find(self, name: str, rdtype: dns.rdatatype.RdataType) -> list[dns.rrset.RRset] | None:
        """Return the records of a name; None if there is no such name."""
        label = APEX if name == self.domain else name.removesuffix(f".{self.domain}")
        core = f"core.{self.domain}."
        if label == APEX and rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS):
            value = f"{core} {SOA_VALUES}" if rdtype == dns.rdatatype.SOA else core
            return [self._record(name, dns.rdatatype.to_text(rdtype), value)]
        # A name of another zone keeps its whole name as label, and no record has that.
        addresses = self.records.get(label, [] if label == APEX else None)
        if addresses is None or rdtype != dns.rdatatype.A:
            return None if addresses is None else []
        if self.mode == "cname":
            return [self._record(name, "CNAME", core), *(self._record(core, "A", address) for address in addresses)]
        return [self._record(name, "A", address) for address in addresses]

    def _record(self, name: str, rdtype: str, value: str) -> dns.rrset.RRset:
        return dns.rrset.from_text(name.rstrip(".") + ".", self.ttl, "IN", rdtype, value)


class _Endpoint(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes], bytes | None], closed: asyncio.Future[None]) -> None:
        self._answer = answer
        self._closed = closed
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if (answer := self._answer(data)) is not None:
            self._transport.sendto(answer, addr)

    def connection_lost(self, _: Exception | None) -> None:
        self._closed.set_result(None)


def _wire(query: dns.message.Message, rcode: int, answers: list[dns.rrset.RRset], flags: int) -> bytes:
    """Write an answer; dnspython's own writer would compress the names, and so give them the question's case."""
    out = BytesIO()
    flags |= dns.flags.QR | query.flags & (dns.flags.RD | dns.flags.AD) | rcode
    out.write(struct.pack("!HHHHHH", query.id, flags, len(query.question), len(answers), 0, 0))
    for question in query.question:
        question.name.to_wire(out)
        out.write(struct.pack("!HH", question.rdtype, question.rdclass))
    for answer in answers:
        answer.to_wire(out)
    return out.getvalue()
