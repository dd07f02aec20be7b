"""Single requests of a probe, and certificates and TLS servers that fail as real ones do."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from yarl import URL

from collectors.base import CheckReport, Clock
from collectors.failures import Failure, Reason
from collectors.http import Http, HttpClient, Lookups, Reply
from collectors.settings import TargetSettings
from health_exporter.simulators.wire import Server
from tests.support import contexts_of

HOST = "api.example.com"


class Names(Lookups):
    """Names that resolve as a test says, after a while if it wants."""

    def __init__(self, names: dict[str, list[str]] | None = None, delay: float = 0.0) -> None:
        super().__init__()
        self.names = names or {}
        self.delay = delay
        self.asked: list[str] = []

    async def addresses(self, host: str, family: int) -> list[tuple[str, int]]:
        self.asked.append(host)
        await asyncio.sleep(self.delay)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(address, int(socket.AF_INET)) for address in self.names[host]]


LOCAL = Names({HOST: ["127.0.0.1"], "localhost": ["127.0.0.1"], "core.example.com": ["127.0.0.1"]})


@contextlib.asynccontextmanager
async def probing(target: TargetSettings, lookups: Lookups = LOCAL) -> AsyncIterator[Http]:
    client = HttpClient("tests/1", Clock())
    client.lookups = lookups
    async with client.probe(target, contexts_of(target)[target.tls_config]) as http:
        yield http


@dataclass
class Asked:
    """What one request has come to."""

    report: CheckReport
    reply: Reply | None = None
    failure: Failure | None = None
    expiry: float | None = None
    lookup_seconds: float | None = None
    late: bool = False

    @property
    def reason(self) -> Reason | None:
        return self.failure.reason if self.failure else None


async def ask(
    target: TargetSettings,
    method: str = "GET",
    path: str = "/x",
    *,
    lookups: Lookups = LOCAL,
    deadline: float = 5.0,
    connect_to: str | None = None,
) -> Asked:
    asked = Asked(CheckReport("test"))
    async with probing(target, lookups) as http:
        origin = http.origin(target.address, connect_to=URL(connect_to) if connect_to else None)
        try:
            async with asyncio.timeout(deadline):
                asked.reply = await http.ask(asked.report, method, origin, path)
        except Failure as failure:
            asked.failure = failure
        except TimeoutError:
            asked.late = True
    asked.expiry, asked.lookup_seconds = http.certificate_expiry, http.lookup_seconds
    return asked


def url_of(server: Server, host: str = "127.0.0.1") -> str:
    return f"{'https' if server.ssl else 'http'}://{host}:{server.port}"


class Certificates:
    """An authority of its own, the certificates it has issued, and their files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, *names: str, until: datetime | None = None) -> trustme.LeafCert:
        return self.authority.issue_cert(*names, not_after=until, key_type=trustme.KeyType.ECDSA)

    @cached_property
    def good(self) -> trustme.LeafCert:
        return self.issue(HOST, "localhost", "127.0.0.1")

    @cached_property
    def expired(self) -> trustme.LeafCert:
        return self.issue(HOST, "localhost", "127.0.0.1", until=datetime(2020, 2, 29, 12, 30, 15, tzinfo=UTC))

    @cached_property
    def other_host(self) -> trustme.LeafCert:
        return self.issue("other.example.com", until=datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC))

    @cached_property
    def far(self) -> trustme.LeafCert:
        return self.issue(HOST, "localhost", "127.0.0.1", until=datetime(2135, 6, 1, 1, 2, 3, tzinfo=UTC))

    @cached_property
    def self_signed(self) -> tuple[bytes, bytes]:
        """The certificate and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(datetime(2044, 4, 4, 4, 4, 4, tzinfo=UTC))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        form = serialization.NoEncryption()
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form
        )

    def server(self, leaf: trustme.LeafCert | tuple[bytes, bytes]) -> ssl.SSLContext:
        """Return the context of a server with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if isinstance(leaf, trustme.LeafCert):
            leaf.configure_cert(context)
        else:
            file = self.directory / "self-signed.pem"
            file.write_bytes(b"".join(leaf))
            context.load_cert_chain(file)
        return context


def trusting(certificates: Certificates, **keys: Any) -> dict[str, Any]:
    return {"tls_config": {"ca_file": str(certificates.ca_file), **keys}}


def chain_of(leaf: trustme.LeafCert | tuple[bytes, bytes]) -> x509.Certificate:
    """Return the leaf certificate as `cryptography` reads it."""
    pem = leaf.cert_chain_pems[0].bytes() if isinstance(leaf, trustme.LeafCert) else leaf[0]
    return x509.load_pem_x509_certificate(pem)


@contextlib.contextmanager
def strict_server(context: ssl.SSLContext) -> Iterator[int]:
    """Serve TLS from a thread, one connection after the other, and give the port.

    A refused handshake ends with the alert on the wire and an orderly close; asyncio's own server sends no alert
    before Python 3.12. A handshake that goes well is answered with an empty 200.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            with contextlib.suppress(OSError):
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as connection:
                    connection.settimeout(5)
                    try:
                        connection.do_handshake()
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    except ssl.SSLError:
                        raw = socket.socket(fileno=os.dup(connection.fileno()))
                        with raw:
                            raw.settimeout(5)
                            raw.shutdown(socket.SHUT_WR)
                            while raw.recv(65536):
                                pass

    thread = threading.Thread(target=serve, name="strict server")
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
