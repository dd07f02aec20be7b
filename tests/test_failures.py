"""The table of reasons: its order, the causes it looks through, and what the log may say."""

import errno
import socket
import ssl
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import dns.exception
import dns.resolver
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from collectors.failures import Broken, Failure, Reason, describe, reason_of
from tests.support import pryv
from tests.tls_support import ask

KEY = ConnectionKey("secret-host.example.com", 443, True, ssl.create_default_context(), None, None, None, None)
REQUEST = cast("Any", SimpleNamespace(real_url=URL("https://secret-host.example.com/secret-path")))
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
ALERT = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)")
UNTRUSTED = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    """Return the error as if it had been raised from the causes, each from the next."""
    link = error
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return error


def dns_error(kind: Callable[..., dns.exception.DNSException]) -> dns.exception.DNSException:
    return kind()


def proxy_error() -> aiohttp.ClientHttpProxyError:
    return aiohttp.ClientHttpProxyError(REQUEST, (), status=407, message="remote text")


ROWS: list[tuple[BaseException, Reason]] = [
    (caused(aiohttp.ClientConnectorDNSError(KEY, NO_NAME), NO_NAME), Reason.DNS),
    (caused(aiohttp.ClientConnectorError(KEY, REFUSED), REFUSED), Reason.CONNECT),
    (caused(aiohttp.ClientConnectorError(KEY, OSError()), TimeoutError(110, "timed out")), Reason.TIMEOUT),
    (caused(aiohttp.ClientConnectorSSLError(KEY, ALERT), ALERT), Reason.TLS),
    (aiohttp.ClientConnectorCertificateError(KEY, UNTRUSTED), Reason.TLS),
    (aiohttp.ClientProxyConnectionError(KEY, REFUSED), Reason.CONNECT),
    (proxy_error(), Reason.CONNECT),
    (aiohttp.ConnectionTimeoutError("x"), Reason.TIMEOUT),
    (aiohttp.ServerDisconnectedError(), Reason.DISCONNECT),
    (aiohttp.ClientPayloadError("x"), Reason.DISCONNECT),
    (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), Reason.DISCONNECT),
    (caused(Broken(), aiohttp.ServerDisconnectedError()), Reason.DISCONNECT),
    (caused(Broken(), aiohttp.ClientOSError(), ConnectionResetError()), Reason.DISCONNECT),
    (caused(Broken(), aiohttp.ClientOSError(), ALERT), Reason.TLS),
    (aiohttp.ClientResponseError(REQUEST, (), status=400, message="remote text"), Reason.DISCONNECT),
    (caused(aiohttp.ClientPayloadError(), zlib.error()), Reason.DISCONNECT),
    (TimeoutError(), Reason.TIMEOUT),
    (dns_error(dns.exception.Timeout), Reason.TIMEOUT),
    (dns_error(dns.resolver.NXDOMAIN), Reason.DNS),
    (dns_error(dns.exception.DNSException), Reason.DNS),
    (UnicodeError("label too long"), Reason.DNS),
    (REFUSED, Reason.CONNECT),
    (OSError(errno.EHOSTUNREACH, "No route to host"), Reason.CONNECT),
    (ALERT, Reason.TLS),
    (Broken(), Reason.INTERNAL),
    (ValueError(), Reason.INTERNAL),
    (AssertionError(), Reason.INTERNAL),
    (caused(RuntimeError(), REFUSED), Reason.CONNECT),
]


@pytest.mark.parametrize(("error", "reason"), ROWS, ids=[f"{type(row[0]).__name__}-{row[1]}" for row in ROWS])
def test_an_exception_has_the_first_reason_that_fits_it_or_a_cause(error: BaseException, reason: Reason) -> None:
    assert reason_of(error) == reason


def test_a_circle_of_causes_comes_to_an_end() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert reason_of(first) == Reason.INTERNAL
    assert describe(first).startswith("ValueError from KeyError")


def test_only_what_an_error_was_raised_from_counts() -> None:
    error = ValueError()
    error.__context__ = REFUSED
    assert reason_of(error) == Reason.INTERNAL


@pytest.mark.parametrize("error", [row[0] for row in ROWS])
def test_the_log_shows_no_remote_text_no_url_and_no_object(error: BaseException) -> None:
    text = describe(error)
    assert type(error).__name__ in text or isinstance(error, Broken)
    for hidden in ("remote text", "SSLContext", "object at", "secret", "://", "\n"):
        assert hidden not in text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ROWS[0][0], "ClientConnectorDNSError from gaierror (Name or service not known)"),
        (ROWS[1][0], "ClientConnectorError from ConnectionRefusedError (Connection refused)"),
        (
            caused(Broken(), aiohttp.ClientOSError(), ConnectionResetError(104, "Connection reset by peer")),
            "ClientOSError from ConnectionResetError (Connection reset by peer)",
        ),
        (aiohttp.ServerDisconnectedError("remote text"), "ServerDisconnectedError"),
        (ValueError("a body"), "ValueError"),
    ],
)
def test_the_log_names_the_classes_and_the_words_of_the_system(error: BaseException, text: str) -> None:
    assert describe(error) == text


def test_a_long_chain_is_cut() -> None:
    chain = caused(ValueError(), *(KeyError() for _ in range(9)))
    assert describe(chain) == "ValueError from KeyError from KeyError from KeyError"


async def test_the_words_for_a_refused_certificate_say_why() -> None:
    verdict = ssl.SSLCertVerificationError(1, "text")
    verdict.verify_message = "certificate has expired"
    error = caused(aiohttp.ClientConnectorCertificateError(KEY, verdict), verdict)
    assert describe(error) == (
        "ClientConnectorCertificateError from SSLCertVerificationError (certificate has expired)"
    )


async def test_a_refused_port_is_said_without_address_and_context() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        asked = await ask(pryv(f"https://127.0.0.1:{unused.getsockname()[1]}"))
    assert asked.failure is not None
    assert asked.failure.detail.startswith("ClientConnectorError from ConnectionRefusedError")
    assert "SSLContext" not in asked.failure.detail
    assert "://" not in asked.failure.detail


def test_a_failure_carries_its_reason_and_its_words() -> None:
    failure = Failure(Reason.SCHEMA, "meta: missing")
    assert (failure.reason, failure.detail) == (Reason.SCHEMA, "meta: missing")
    assert failure.args == (Reason.SCHEMA, "meta: missing")
    assert Failure(Reason.AUTH).detail == ""


def test_the_reasons_stand_in_the_order_of_the_contract() -> None:
    assert [str(reason) for reason in Reason] == [
        "internal",
        "dns",
        "timeout",
        "connect",
        "tls",
        "disconnect",
        "too_large",
        "redirect",
        "wrong_target",
        "auth",
        "not_found",
        "http_status",
        "decode",
        "schema",
        "unhealthy",
    ]
