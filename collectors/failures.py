"""Why a check fails: the closed list of reasons, and the one table that folds exceptions into it.

Whoever knows the reason raises `Failure(reason, detail)`: asking, parsing, the checks. `reason_of(exception)` is for
everything else that asking over HTTP or DNS can raise.
"""

import ssl
from enum import StrEnum

import aiohttp
import dns.exception
import dns.resolver
from aiohttp.http_exceptions import LineTooLong


class Reason(StrEnum):
    """Values of the label `reason`, in their order of precedence: the first that fits is given."""

    INTERNAL = "internal"
    """A bug of the exporter: an exception no table knows. Logged with its traceback."""
    DNS = "dns"
    """The name has no address: NXDOMAIN, no data, SERVFAIL, refused."""
    TIMEOUT = "timeout"
    """No whole answer in time, whatever the step, name lookup included."""
    CONNECT = "connect"
    """Connection refused, host or network unreachable, or the proxy does not connect."""
    TLS = "tls"
    """Handshake failed, certificate not accepted, or a TLS alert at any time."""
    DISCONNECT = "disconnect"
    """Reset or end before the answer was whole."""
    TOO_LARGE = "too_large"
    """A limit was exceeded: bytes, depth, number of things."""
    REDIRECT = "redirect"
    """Status 3xx; redirects are never followed."""
    WRONG_TARGET = "wrong_target"
    """Something else than the expected API answers, or the wrong instance of it (421)."""
    AUTH = "auth"
    """401 or 403 of the API itself, or a credential known to have expired."""
    NOT_FOUND = "not_found"
    """404: the account, the project or the path of the API does not exist there."""
    HTTP_STATUS = "http_status"
    """Any other status that is not promised for the check."""
    DECODE = "decode"
    """The promised status, but the body does not parse."""
    SCHEMA = "schema"
    """The body parses, but does not have the shape of the API."""
    UNHEALTHY = "unhealthy"
    """The right shape, and it says that the thing is not well."""


class Failure(Exception):
    """A check has failed for `reason`. `detail` is for the log: short, no secret, no text of a body."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """Keep the reason and the words for the log."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Broken(Exception):
    """The connection broke while asking; the aiohttp error is the cause.

    aiohttp asks a second time, silently, when a GET or OPTIONS breaks with one of its own classes; with this one it
    does not.
    """


_TABLE: tuple[tuple[type[BaseException], Reason], ...] = (
    (aiohttp.ClientConnectorDNSError, Reason.DNS),
    (dns.exception.Timeout, Reason.TIMEOUT),
    (TimeoutError, Reason.TIMEOUT),
    (ssl.SSLError, Reason.TLS),
    (aiohttp.ClientProxyConnectionError, Reason.CONNECT),
    (aiohttp.ClientHttpProxyError, Reason.CONNECT),
    (aiohttp.ClientConnectorError, Reason.CONNECT),
    (LineTooLong, Reason.TOO_LARGE),
    (aiohttp.ClientPayloadError, Reason.DISCONNECT),
    (aiohttp.ServerDisconnectedError, Reason.DISCONNECT),
    (aiohttp.ClientOSError, Reason.DISCONNECT),
    (aiohttp.ClientResponseError, Reason.DISCONNECT),
    (UnicodeError, Reason.DNS),
    (dns.exception.DNSException, Reason.DNS),
    (OSError, Reason.CONNECT),
)


def reason_of(error: BaseException) -> Reason:
    """Return the reason for an exception raised while asking; `internal` if the table does not know it.

    The rows are tried in order, each against the exception and everything it was raised from: a TLS alert that comes
    after the handshake, for one, shows only as the cause of an ordinary connection error.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    for kind, reason in _TABLE:
        if any(isinstance(link, kind) for link in chain):
            return reason
    return Reason.INTERNAL


def describe(error: BaseException) -> str:
    """Return one line for the log: the classes of the chain and the system's error texts, never a remote text."""
    parts: list[str] = []
    link: BaseException | None = error
    while link is not None and len(parts) < 4:  # noqa: PLR2004
        text = type(link).__name__
        if isinstance(link, OSError) and not isinstance(link, aiohttp.ClientConnectorError):
            # aiohttp's own certificate error is one of Python's too, but has nothing of its attributes.
            words = getattr(link, "verify_message", None) or link.strerror
            text += f" ({words})" if words else ""
        if not isinstance(link, Broken):
            parts.append(text)
        link = link.__cause__
    return " from ".join(parts)
