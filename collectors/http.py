"""Asking over HTTP: fresh connections, every phase measured, every limit kept, every exception folded to a reason.

One `HttpClient` serves the process; `HttpClient.probe` gives the `Http` of one probe. Nothing is followed, resent,
remembered or reused from one probe to the next: servers close idle connections after seconds, and a connection that
was found dead says nothing about the target.
"""

import asyncio
import errno
import json
import socket
import threading
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from types import SimpleNamespace, TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from collectors.base import CheckReport, Clock
from collectors.failures import Broken, Failure, Reason, describe, reason_of
from collectors.settings import TargetSettings
from collectors.tls import TlsContexts, Trace, not_after, trace_of_request

P = ParamSpec("P")
T = TypeVar("T")

FAMILIES = {"any": socket.AF_UNSPEC, "ip4": socket.AF_INET, "ip6": socket.AF_INET6}
CERTIFICATE_SECONDS = 0.5
"""How long a probe waits at its end for refused certificates to be read."""
LARGE_BODY = 256 * 1024
"""Bodies above this many bytes are decoded in a thread, one at a time."""
LARGE_REPLY = 64 * 1024
"""What bodies above this many bytes say is worked out in a thread, too; the costliest of that size takes 50 ms."""
INFLATE_STEP = 256 * 1024


@dataclass(frozen=True, slots=True)
class Origin:
    """Where to ask: connect to `base`, say `authority` as Host, and check the certificate for `server_name`."""

    base: URL
    authority: str | None = None
    server_name: str | None = None

    def url(self, path: str) -> URL:
        """Return the URL of a path (already encoded, with its query) below the base."""
        return URL(str(self.base).rstrip("/") + path, encoded=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `middle` is the Unix time halfway of the exchange, `took` its length in seconds."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    middle: float
    took: float


class HttpClient:
    """What all probes share: name lookups under way, and the turn to parse a large body."""

    def __init__(self, user_agent: str, clock: Clock) -> None:
        """Prepare to ask as `user_agent`."""
        self.user_agent = user_agent
        self.clock = clock
        self.lookups = Lookups()
        self._large = asyncio.Semaphore(1)

    def probe(self, settings: TargetSettings, tls: TlsContexts) -> "Http":
        """Return the connections of one probe; use it as an async context manager."""
        return Http(self, settings, tls)

    async def decode_json(self, body: bytes) -> Any:
        """Return the JSON document of a body. Raises ValueError, and Failure(too_large) if it nests too deep."""
        if len(body) <= LARGE_BODY:
            return _decode_json(body)
        return await self.in_turn(_decode_json, body)

    async def in_turn(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do large work in a thread, one at a time: two at once would hold up the event loop twice as long."""
        async with self._large:
            return await asyncio.to_thread(work, *args, **kwargs)

    async def digest(self, reply: Reply, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the work on what a reply says: in a thread, in turn, if it is large."""
        if len(reply.body) <= LARGE_REPLY:
            return work(*args, **kwargs)
        return await self.in_turn(work, *args, **kwargs)


def _decode_json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise Failure(Reason.TOO_LARGE, "JSON nested too deep") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class Http:
    """The requests of one probe of one target."""

    def __init__(self, client: HttpClient, settings: TargetSettings, tls: TlsContexts) -> None:
        """Prepare the session; nothing is opened yet."""
        self.client = client
        self.certificate_expiry: float | None = None
        self._settings = settings
        self._tls = tls
        self._lookup_seconds: dict[str, float] = {}
        self._reading: dict[Origin, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession
        self._headers = _headers(settings)
        self._proxy_headers = _proxy_headers(settings)

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._tls.asking,
                family=FAMILIES[self._settings.ip_protocol],
                resolver=_Resolver(self.client.lookups),
                use_dns_cache=False,
                force_close=True,
                limit=0,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self.client.user_agent},  # aiohttp gives these to a proxy too
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            trace_configs=[_TRACING],
            middlewares=(_never_resend,),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection; at an undisturbed end, give refused certificates a moment to be read."""
        reading = self._reading.values()
        async with self._session:  # closed even if the probe is cancelled while it waits here
            try:
                if reading and error is None:
                    await asyncio.wait(reading, timeout=CERTIFICATE_SECONDS)
            finally:
                for task in reading:
                    task.cancel()
                await asyncio.gather(*reading, return_exceptions=True)

    @property
    def lookup_seconds(self) -> float | None:
        """How long the name lookups of this probe took; None if there was none."""
        return sum(self._lookup_seconds.values()) if self._lookup_seconds else None

    def origin(self, url: URL, *, connect_to: URL | None = None) -> Origin:
        """Return where to ask for what `url` names.

        With `connect_to` the connection goes to that URL's host instead of `url`'s own, and still says and checks
        `url`'s name: one instance behind a shared name is asked, whatever DNS says about the name.
        """
        server_name = self._settings.tls_config.server_name
        if connect_to is not None:
            port = url.explicit_port or (connect_to.port if connect_to.scheme == url.scheme else url.port)
            base = url.with_host(str(connect_to.host)).with_port(port)
            return Origin(base, url.with_port(port).host_port_subcomponent, server_name or url.host)
        authority = self._settings.host_header
        if authority is not None and url.host == self._settings.address.host:
            return Origin(url, authority, server_name or URL(f"//{authority}").host)
        return Origin(url, None, server_name)

    async def ask(
        self,
        report: CheckReport,
        method: str,
        origin: Origin,
        path: str,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and return the whole answer; what was observed goes to the report, also of a failure.

        Raises Failure: dns, connect, tls, disconnect, too_large or decode.
        """
        trace = Trace()
        trace_of_request.set(trace)
        try:
            async with self._request(method, origin, path, headers, trace) as response:
                report.status = response.status
                body = await self._read(response)
                end = perf_counter()
                took = end - (trace.sent or end)
                return Reply(response.status, response.headers, body, self.client.clock.wall() - took / 2, took)
        except aiohttp.ClientConnectorCertificateError as error:
            self._read_certificate(origin)
            raise Failure(Reason.TLS, describe(error)) from error
        except (aiohttp.ClientConnectorError, Broken) as error:
            # The peer may end a handshake without an alert: then only the trace knows that it was one.
            in_handshake = trace.tls_begin is not None and trace.sent is None
            raise Failure(Reason.TLS if in_handshake else reason_of(error), describe(error)) from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise Failure(reason_of(error), describe(error)) from error
        finally:
            self._observe(report, origin, trace)

    def _request(
        self, method: str, origin: Origin, path: str, headers: Mapping[str, str] | None, trace: Trace | None
    ) -> Any:
        options: dict[str, Any] = {}
        sent = CIMultiDict(self._headers)
        sent.update(headers or {})
        if origin.authority is not None:
            sent["Host"] = origin.authority
        if origin.base.scheme == "https":
            options["server_hostname"] = origin.server_name
        if trace is None:
            options["ssl"] = self._tls.reading
        if self._settings.proxied(str(origin.base.host)):
            options["proxy"] = self._settings.proxy_url
            if origin.base.scheme == "https":
                options["proxy_headers"] = self._proxy_headers
            else:
                sent.update(self._proxy_headers)
        return self._session.request(
            method,
            origin.url(path),
            headers=sent,
            allow_redirects=False,
            trace_request_ctx=trace,
            **options,
        )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body, inflated; never hold more than the limit."""
        limit = self._settings.max_body_size
        if (response.content_length or 0) > limit:
            raise Failure(Reason.TOO_LARGE, f"the body has more than {limit} bytes")
        inflate = _inflater(response.headers.get("Content-Encoding", ""), response.status)
        body = bytearray()
        begun = False
        async for chunk in response.content.iter_any():
            begun, rest = True, chunk
            while rest:
                body += rest if inflate is None else _inflate(inflate, rest)
                rest = b"" if inflate is None else inflate.unconsumed_tail
                if len(body) > limit:
                    raise Failure(Reason.TOO_LARGE, f"the body has more than {limit} bytes")
                if rest:
                    await asyncio.sleep(0)
            if inflate is not None and inflate.unused_data:
                raise Failure(Reason.DISCONNECT, "the gzip stream goes on after its end")
        if inflate is not None and begun and not inflate.eof:
            raise Failure(Reason.DISCONNECT, "the gzip stream ends before its end")
        return bytes(body)

    def _observe(self, report: CheckReport, origin: Origin, trace: Trace) -> None:
        phases = trace.phases(perf_counter())
        for phase, seconds in phases.items():
            report.phases[phase] = report.phases.get(phase, 0.0) + seconds
        if "resolve" in phases:
            host = str(origin.base.host)
            self._lookup_seconds[host] = max(phases["resolve"], self._lookup_seconds.get(host, 0.0))
        self._keep_expiry(trace.certificates)

    def _keep_expiry(self, certificates: list[bytes]) -> None:
        for certificate in certificates:
            with suppress(ValueError):
                expiry, known = not_after(certificate), self.certificate_expiry
                self.certificate_expiry = expiry if known is None else min(expiry, known)

    def _read_certificate(self, origin: Origin) -> None:
        """Connect once more, without verification, to learn when a refused certificate expires.

        Beside the check, not in its time: that the certificate was refused is known already.
        """
        if origin in self._reading:
            return

        async def read() -> None:
            trace = Trace()
            trace_of_request.set(trace)
            with suppress(aiohttp.ClientError, OSError, Broken):
                async with self._request("GET", origin, "/", None, None):
                    pass
            self._keep_expiry(trace.certificates)

        self._reading[origin] = asyncio.create_task(read())


def _headers(settings: TargetSettings) -> CIMultiDict[str]:
    headers = CIMultiDict({"Accept": "application/json", "Accept-Encoding": "gzip"})
    if (basic := settings.basic_auth) is not None:
        password = basic.password or basic.password_file
        headers["Authorization"] = aiohttp.encode_basic_auth(basic.username, password.get() if password else "")
    headers.update({name: secret.get() for name, secret in {**settings.headers, **settings.header_files}.items()})
    return headers


def _proxy_headers(settings: TargetSettings) -> dict[str, str]:
    credentials = settings.proxy_auth or settings.proxy_auth_file
    if credentials is None:
        return {}
    user, _, password = credentials.get().partition(":")
    return {"Proxy-Authorization": aiohttp.encode_basic_auth(user, password)}


def _inflater(encoding: str, status: int) -> Any:
    """Return a decompressor for the body, or None for a plain one; only gzip is asked for.

    Raises Failure(decode) for any other encoding, but of a success only: else the status says more than the body.
    """
    if encoding.lower() in {"gzip", "x-gzip"}:
        return zlib.decompressobj(wbits=31)
    if encoding.lower() not in {"", "identity"} and 200 <= status < 300:  # noqa: PLR2004
        raise Failure(Reason.DECODE, "a content encoding that was not asked for")
    return None


def _inflate(inflate: Any, data: bytes) -> bytes:
    try:
        return bytes(inflate.decompress(data, INFLATE_STEP))
    except zlib.error as error:
        raise Failure(Reason.DISCONNECT, "broken gzip stream") from error


async def _never_resend(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from asking a second time when a connection breaks (it does for GET and OPTIONS)."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise Broken from error


def _stamp(field: str) -> Callable[[aiohttp.ClientSession, SimpleNamespace, Any], Awaitable[None]]:
    async def stamp(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
        if (trace := context.trace_request_ctx) is not None:
            setattr(trace, field, perf_counter())

    return stamp


_TRACING = aiohttp.TraceConfig()
_TRACING.on_connection_create_start.append(_stamp("connect_begin"))
_TRACING.on_connection_create_end.append(_stamp("connected"))
_TRACING.on_request_headers_sent.append(_stamp("sent"))
_TRACING.on_request_end.append(_stamp("headers"))


class Lookups:
    """Name lookups by the system's resolver, each in a thread of its own.

    getaddrinfo cannot be cancelled, and a dead name server holds it for tens of seconds. A pool of threads would fill
    up and let one dead name cost all other targets theirs; here a name holds one thread, however often it is asked.
    """

    def __init__(self) -> None:
        """Begin with no lookup under way."""
        self._under_way: dict[tuple[str, int], asyncio.Future[list[tuple[str, int]]]] = {}

    async def addresses(self, host: str, family: int) -> list[tuple[str, int]]:
        """Return (address, family) of a name, at least one. Raises OSError."""
        lookup = self._under_way.get((host, family))
        if lookup is None:
            lookup = self._begin(host, family)
        return await asyncio.shield(lookup)

    def _begin(self, host: str, family: int) -> asyncio.Future[list[tuple[str, int]]]:
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[list[tuple[str, int]]] = loop.create_future()
        self._under_way[host, family] = lookup

        def done(_: asyncio.Future[Any]) -> None:
            del self._under_way[host, family]
            if not lookup.cancelled():
                lookup.exception()

        def tell(found: list[tuple[str, int]] | OSError | UnicodeError) -> None:
            if lookup.cancelled():
                return
            if isinstance(found, Exception):
                lookup.set_exception(found)
            else:
                lookup.set_result(found)

        def run() -> None:
            answer = _getaddrinfo(host, family)
            with suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(tell, answer)

        lookup.add_done_callback(done)
        try:
            threading.Thread(target=run, name=f"lookup {host}", daemon=True).start()
        except RuntimeError as error:
            tell(OSError(errno.EAGAIN, str(error)))
        return lookup


def _getaddrinfo(host: str, family: int) -> list[tuple[str, int]] | OSError | UnicodeError:
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        return error
    return list(dict.fromkeys((str(address[0]), int(kind)) for kind, _, _, _, address in found))


class _Resolver(AbstractResolver):
    """Gives aiohttp the shared lookups and stamps the trace of the request."""

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up for aiohttp."""
        trace = trace_of_request.get()
        trace.resolve_begin = perf_counter()
        found = await self._lookups.addresses(host, family)
        trace.resolve_end = perf_counter()
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for address, kind in found
        ]

    async def close(self) -> None:
        """Nothing to close: lookups are shared."""
