"""Asking DNS servers for addresses, over UDP and by name server, as `dig A name @server` does.

Nothing is asked of the flags or the spelling of the answer: the DNS server inside Pryv sets no AA, answers in lower
case whatever was asked, and has no TCP.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.resolver

from collectors.failures import Failure, Reason, describe, reason_of

TRIES = 2
"""How often one server is asked within its timeout: a lost packet is no broken server."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """Address and port of a name server."""

    address: str
    port: int = 53

    @classmethod
    def parse(cls, text: str) -> "NameServer":
        """Read `192.0.2.53`, `192.0.2.53:53`, `2001:db8::1` or `[2001:db8::1]:53`. Raises ValueError."""
        host, port = text, "53"
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(text)
            port = rest[1:] or "53"
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004
            raise ValueError(text)
        return cls(str(ipaddress.ip_address(host)), int(port))


@dataclass(frozen=True, slots=True)
class Answer:
    """The A records of a name, sorted, and the smallest TTL on the way to them, in seconds."""

    addresses: tuple[str, ...]
    ttl: int


class NoAddress(Failure):
    """A server has answered that the name has no address: no other server is asked."""

    def __init__(self, detail: str) -> None:
        """Give the reason every such answer has."""
        super().__init__(Reason.DNS, detail)


async def addresses_of(name: str, servers: Sequence[NameServer], patience: float) -> Answer:
    """Ask the servers one after the other, each for `patience` seconds; the first that gives an answer decides.

    No servers: those of the system. Raises Failure: dns (the name has no address, or no server can tell), timeout
    or connect.
    """
    failures = []
    for server in servers or _system_servers():
        try:
            return await _ask(name, server, patience)
        except NoAddress:
            raise
        except Failure as failure:
            failures.append(failure)
    raise min(failures, key=lambda failure: list(Reason).index(failure.reason))


def _system_servers() -> list[NameServer]:
    try:
        system = dns.resolver.Resolver()
    except dns.exception.DNSException as error:
        raise Failure(Reason.DNS, describe(error)) from error
    return [NameServer(str(address), system.port) for address in system.nameservers]


async def _ask(name: str, server: NameServer, patience: float) -> Answer:
    try:
        async with asyncio.timeout(patience):
            response = await _exchange(dns.message.make_query(name, "A"), server, patience / TRIES)
        rcode = response.rcode()
        if rcode == dns.rcode.NXDOMAIN:
            raise NoAddress(f"NXDOMAIN from {server.address}")
        if rcode != dns.rcode.NOERROR:
            raise Failure(Reason.DNS, f"{dns.rcode.to_text(rcode)} from {server.address}")
        if not isinstance(response, dns.message.QueryMessage):
            raise Failure(Reason.DNS, f"no answer to a query from {server.address}")
        found = response.resolve_chaining()
    except (dns.exception.DNSException, OSError) as error:
        raise Failure(reason_of(error), f"{describe(error)}, asking {server.address}") from error
    if found.answer is None:
        raise NoAddress(f"no A record at {server.address}")
    return Answer(tuple(sorted(record.address for record in found.answer)), found.minimum_ttl)


async def _exchange(query: dns.message.Message, server: NameServer, patience: float) -> dns.message.Message:
    """Send a query and return the answer to it; once more after `patience` seconds."""
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    destination = (server.address, server.port)
    backend = dns.asyncbackend.get_default_backend()
    for attempt in range(1, TRIES + 1):
        # A connected socket hears from the system that nothing listens there.
        sock = await backend.make_socket(family, socket.SOCK_DGRAM, 0, None, destination)  # type: ignore[no-untyped-call]
        async with sock:
            try:
                response = await dns.asyncquery.udp(
                    query, server.address, patience, server.port, ignore_unexpected=True, ignore_errors=True, sock=sock
                )
            except dns.exception.Timeout:
                if attempt == TRIES:
                    raise
            else:
                return response
    raise AssertionError("the last try returns or raises")
