"""TLS as a probe needs it: contexts built once, handshakes timed, certificates read even when they are not accepted."""

import calendar
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter

from collectors.settings import TlsConfig


@dataclass(slots=True)
class Trace:
    """When the steps of one request happened, in perf_counter seconds; None: not (yet)."""

    resolve_begin: float | None = None
    resolve_end: float | None = None
    connect_begin: float | None = None
    connected: float | None = None
    tls_begin: float | None = None
    tls_end: float | None = None
    sent: float | None = None
    headers: float | None = None
    certificates: list[bytes] = field(default_factory=list)

    def phases(self, end: float) -> dict[str, float]:
        """Return the seconds of each step that was begun; one that did not finish lasted until `end`."""
        steps = (
            ("resolve", self.resolve_begin, self.resolve_end),
            ("connect", self.resolve_end or self.connect_begin if not self._resolving() else None, self._tcp_end()),
            ("tls", self.tls_begin, self.tls_end),
            ("processing", self.sent, self.headers),
            ("transfer", self.headers, end),
        )
        return {name: (done or end) - begin for name, begin, done in steps if begin is not None}

    def _resolving(self) -> bool:
        return self.resolve_begin is not None and self.resolve_end is None

    def _tcp_end(self) -> float | None:
        return self.tls_begin or self.connected


trace_of_request: ContextVar[Trace] = ContextVar("trace_of_request")
"""The trace of the request that is being made in this context."""


class CertificateRead(ssl.SSLError):
    """Ends a handshake that was made only to read the certificate. An SSLError, since asyncio passes on no other."""


class TimedSSLObject(ssl.SSLObject):
    """Stamps the trace of the request when the handshake begins and ends, and keeps the certificates."""

    _trace: Trace | None = None

    def do_handshake(self) -> None:
        """Go one step further in the handshake."""
        if self._trace is None:
            self._trace = trace_of_request.get()
            self._trace.tls_begin = perf_counter()
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except BaseException:
            self._trace.tls_end = perf_counter()
            raise
        self._trace.tls_end = perf_counter()
        self._trace.certificates = certificates_of(self)


class HangUpSSLObject(ssl.SSLObject):
    """Reads the certificates and ends the connection before anything is sent over it."""

    def do_handshake(self) -> None:
        """Go one step further in the handshake; raises CertificateRead when it is done."""
        super().do_handshake()
        trace_of_request.get().certificates = certificates_of(self)
        raise CertificateRead("certificate read")


def certificates_of(connection: ssl.SSLObject) -> list[bytes]:
    """Return the peer's certificates as DER: the whole chain it sent from Python 3.13 on, else the leaf alone."""
    chain = getattr(connection, "get_unverified_chain", None)
    if chain is not None:
        return list(chain())
    leaf = connection.getpeercert(binary_form=True)
    return [leaf] if leaf else []


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """The two contexts of one tls_config: for asking, and for reading a certificate that was not accepted."""

    asking: ssl.SSLContext
    reading: ssl.SSLContext


def tls_contexts(config: TlsConfig) -> TlsContexts:
    """Build the contexts of a tls_config: 18 ms of CPU, so once at load, never per probe.

    Raises ValueError, with words for the operator, if a file of the config cannot be used.
    """
    try:
        asking = ssl.create_default_context(cafile=config.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"{config.ca_file} holds no usable CA certificate ({_words(error)})") from error
    if config.insecure_skip_verify:
        asking.check_hostname = False
        asking.verify_mode = ssl.CERT_NONE
    reading = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    reading.check_hostname = False
    reading.verify_mode = ssl.CERT_NONE
    if config.cert_file is not None:
        try:
            for context in (asking, reading):
                context.load_cert_chain(config.cert_file, config.key_file, password="")
        except (ssl.SSLError, OSError) as error:
            raise ValueError(
                f"{config.cert_file} and {config.key_file or config.cert_file} are no usable certificate and key"
                f" ({_words(error)})"
            ) from error
    asking.sslobject_class = TimedSSLObject
    reading.sslobject_class = HangUpSSLObject
    return TlsContexts(asking, reading)


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error.strerror or type(error).__name__)


_UTC_TIME = 0x17
_VERSION = 0xA0


def not_after(certificate: bytes) -> float:
    """Return when an X.509 certificate (DER) expires, in Unix seconds. Raises ValueError for anything else.

    Python gives no date for a certificate that was not verified, so the few fields before it (RFC 5280, 4.1) are
    stepped over here.
    """
    try:
        at, _ = _element(certificate, 0)
        at, _ = _element(certificate, at)
        skipped = 4 if certificate[at] == _VERSION else 3
        for _ in range(skipped):
            _, at = _element(certificate, at)
        at, _ = _element(certificate, at)
        _, at = _element(certificate, at)
        kind = certificate[at]
        at, end = _element(certificate, at)
        text = certificate[at:end].decode("ascii")
    except IndexError as error:
        raise ValueError("truncated certificate") from error
    if kind == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))


def _element(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the DER element at `at` begins and ends."""
    length, at = data[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        length, at = int.from_bytes(data[at : at + octets], "big"), at + octets
    if at + length > len(data):
        raise ValueError("truncated certificate")
    return at, at + length
