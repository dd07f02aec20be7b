"""The HTTP side: routes, parameters, limits, and serving until told to stop."""

import asyncio
import contextlib
import difflib
import errno
import html
import logging
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from collectors import COLLECTORS
from collectors.failures import Reason
from health_exporter import __version__
from health_exporter.discovery import groups
from health_exporter.exporter_metrics import IN_FLIGHT, REJECTED, REQUESTS, ExporterMetrics
from health_exporter.exposition import (
    END,
    Blocks,
    Format,
    accepts_gzip,
    compress,
    encode_registry,
    encode_target,
    join,
    negotiate,
)
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Gate, Prober

log = logging.getLogger(__name__)

TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
DEFAULT_BUDGET = 10.0
DRAIN_SECONDS = 30.0
SMALL_BODY = 1400
"""Bodies up to this many bytes fit a packet: not worth compressing."""
LARGE_BODY = 256 * 1024
"""Bodies above this many bytes are compressed in a thread."""
MANY_SAMPLES = 5000
"""More samples than these are encoded, and joined, in a thread."""
_SECONDS = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)

_ADDRESS = re.compile(r"(?:\[(?P<ip6>[^\[\]]+)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,5})")

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class WebOptions:
    """How to serve.

    `timeout_offset` in seconds; `route_prefix` is "" or begins with a slash and ends with none; `external` is the URL
    under which others reach the exporter, if it is not what they ask for.
    """

    route_prefix: str = ""
    max_requests: int = 512
    exporter_metrics: bool = True
    probe_on_metrics: bool = True
    timeout_offset: float = 0.5
    external: URL | None = None


class Exporter:
    """The handlers, and what they share."""

    def __init__(self, prober: Prober, metrics: ExporterMetrics, options: WebOptions) -> None:
        """Serve the prober's targets."""
        self._prober = prober
        self._metrics = metrics
        self._options = options
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.ready = False
        self.draining = False

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[self._account])
        prefix = self._options.route_prefix
        for path, handler, name in (
            ("/metrics", self._limited(self.metrics), "metrics"),
            ("/metrics/exporter", self.exporter_metrics, "metrics_exporter"),
            ("/probe", self._limited(self.probe), "probe"),
        ):
            app.router.add_get(prefix + path, handler, name=name, allow_head=False)
        app.router.add_get(f"{prefix}/sd", self.discovery, name="sd")
        app.router.add_get(f"{prefix}/-/healthy", self.healthy, name="healthy")
        app.router.add_get(f"{prefix}/-/ready", self.readiness, name="ready")
        app.router.add_get(f"{prefix}/", self.landing, name="landing")
        app.on_cleanup.append(self._close)
        return app

    async def drain(self) -> None:
        """Take no more requests to /metrics and /probe, and wait until those in flight are answered."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._idle.wait()

    async def _close(self, _: web.Application) -> None:
        await self._prober.close()

    @web.middleware
    async def _account(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count every answer, by the name of its route: a path would be an endless label."""
        name = request.match_info.route.name or "other"
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers["Cache-Control"] = "no-store"
            self._metrics.counter(REQUESTS, name, str(error.status)).inc()
            raise
        except Exception:
            log.exception("request failed by a bug of the exporter", extra={"handler": name})
            response = web.Response(text="a bug of the exporter; its log has the exception\n", status=500)
        response.headers["Cache-Control"] = "no-store"
        self._metrics.counter(REQUESTS, name, str(response.status)).inc()
        return response

    def _limited(self, handler: Handler) -> Handler:
        """Answer 503 where more than `max_requests` are in flight, or none are wanted any more."""

        async def limited(request: web.Request) -> web.StreamResponse:
            full = self._in_flight >= self._options.max_requests
            if full or self.draining:
                self._metrics.counter(REJECTED, "draining" if self.draining else "max_requests").inc()
                raise web.HTTPServiceUnavailable(text="too many requests, or stopping\n", headers={"Retry-After": "5"})
            self._count_in_flight(1)
            try:
                return await handler(request)
            finally:
                self._count_in_flight(-1)

        return limited

    def _count_in_flight(self, change: int) -> None:
        self._in_flight += change
        self._metrics.gauge(IN_FLIGHT).set(self._in_flight)
        if self._in_flight:
            self._idle.clear()
        else:
            self._idle.set()

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Probe every target, or those asked for, all at once under one deadline."""
        names = self._selected(request)
        narrowed = bool(request.query)
        budget = self._budget(request)
        gate = Gate(budget.seconds, len(names))

        async def one(name: str) -> Blocks:
            return await self._encoded(await self._prober.probe(name, budget, gate), budget, static_labels=True)

        async with asyncio.TaskGroup() as group:
            probes = {name: group.create_task(one(name)) for name in sorted(names, key=self._prober.timed_out)}
        blocks = [probes[name].result() for name in names]
        own = self._options.exporter_metrics and not narrowed
        return await self._answer(request, blocks, own=own)

    async def exporter_metrics(self, request: web.Request) -> web.StreamResponse:
        """Answer with the exporter's own metrics; probe nothing."""
        _only(request, ())
        return await self._answer(request, [], own=True)

    async def probe(self, request: web.Request) -> web.StreamResponse:
        """Probe one target."""
        _only(request, ("target",))
        names = request.query.getall("target", [])
        if len(names) != 1:
            raise _bad("the parameter target has to be given once: /probe?target=NAME")
        self._known(names[0])
        budget = self._budget(request)
        outcome = await self._prober.probe(names[0], budget)
        return await self._answer(request, [await self._encoded(outcome, budget, static_labels=False)], own=False)

    async def discovery(self, request: web.Request) -> web.StreamResponse:
        """Answer Prometheus' HTTP service discovery with every target, or those of the kinds asked for.

        What others reach the exporter by is told by its own flags or the Host of the request, never by X-Forwarded-*.
        """
        _only(request, ("collector",))
        kinds = _kinds(request)
        scheme, address = request.scheme, request.host
        if (external := self._options.external) is not None:
            scheme, address = external.scheme, external.host_port_subcomponent or ""
        if not _HOST.fullmatch(address):
            raise _bad("the Host header is not a host")
        if not re.search(r":\d+$", address):
            address += ":443" if scheme == "https" else ":80"
        wanted = [
            target.settings
            for target in self._prober.targets.values()
            if not kinds or target.settings.collector in kinds
        ]
        return web.json_response(groups(wanted, address, scheme, self._options.route_prefix))

    async def healthy(self, _: web.Request) -> web.StreamResponse:
        """Say that the process answers."""
        return web.Response(text="healthy\n")

    async def readiness(self, _: web.Request) -> web.StreamResponse:
        """Say whether every listener is open and nothing is being shut down."""
        ready = self.ready and not self.draining
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    async def landing(self, _: web.Request) -> web.StreamResponse:
        """Answer with a page that links what there is."""
        prefix = html.escape(self._options.route_prefix)
        rows = "".join(
            f'<li><a href="{prefix}/probe?target={html.escape(name)}">{html.escape(name)}</a>'
            f" ({target.settings.collector}, {html.escape(str(target.settings.address))})</li>\n"
            for name, target in self._prober.targets.items()
        )
        page = _PAGE.format(version=__version__, prefix=prefix, rows=rows)
        return web.Response(
            text=page,
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"},
        )

    async def _encoded(self, outcome: Outcome, budget: Budget, *, static_labels: bool) -> Blocks:
        """Return the lines of one target; samples that cannot be written cost no other target its own."""
        name = outcome.settings.name
        try:
            if sum(len(report.samples) for report in outcome.reports) <= MANY_SAMPLES:
                return encode_target(outcome, budget.seconds, static_labels=static_labels)
            in_turn = self._prober.client.in_turn
            return await in_turn(encode_target, outcome, budget.seconds, static_labels=static_labels)
        except Exception:
            log.exception("samples not written by a bug of the exporter", extra={"target": name})
            failed = self._prober.targets[name].all_failing(Reason.INTERNAL, "the log has the exception")
            return encode_target(failed, budget.seconds, static_labels=static_labels)

    def _selected(self, request: web.Request) -> list[str]:
        _only(request, ("target", "collector"))
        names, kinds = request.query.getall("target", []), _kinds(request)
        if not self._options.probe_on_metrics:
            if names or kinds:
                raise _bad("probing on /metrics is switched off: ask /probe?target=NAME")
            return []
        for name in names:
            self._known(name)
        return [
            name
            for name, target in self._prober.targets.items()
            if (not names or name in names) and (not kinds or target.settings.collector in kinds)
        ]

    def _known(self, name: str) -> None:
        if name not in self._prober.targets:
            raise _bad(_unknown("target", name, self._prober.targets))

    def _budget(self, request: web.Request) -> Budget:
        return Budget.starting_now(
            budget_seconds(request.headers.getall(TIMEOUT_HEADER, []), self._options.timeout_offset)
        )

    async def _answer(self, request: web.Request, blocks: Sequence[Blocks], *, own: bool) -> web.StreamResponse:
        form: Format = negotiate(",".join(request.headers.getall("Accept", [])))
        many = sum(len(lines) for one in blocks for lines in one.values()) > MANY_SAMPLES
        body = await asyncio.to_thread(join, blocks, form) if many else join(blocks, form)
        if own:
            body += encode_registry(self._metrics.registry, form)
        if form.openmetrics:
            body += END
        headers = {"Content-Type": form.content_type, "Vary": "Accept, Accept-Encoding"}
        if len(body) > SMALL_BODY and accepts_gzip(request.headers.get("Accept-Encoding")):
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(compress, body) if len(body) > LARGE_BODY else compress(body)
        return web.Response(body=body, headers=headers)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Health Exporter</title></head>
<body>
<h1>Health Exporter</h1>
<p>Version {version}</p>
<ul>
<li><a href="{prefix}/metrics">Metrics</a> of all targets, probed now</li>
<li><a href="{prefix}/metrics/exporter">Metrics</a> of the exporter itself</li>
</ul>
<h2>Targets</h2>
<ul>
{rows}</ul>
</body>
</html>
"""


def budget_seconds(headers: list[str], offset: float) -> float:
    """Return how long a request can take, in seconds, from its timeout headers; raises 400 for a senseless one."""
    if not headers:
        return DEFAULT_BUDGET
    if len(headers) > 1:
        raise _bad(f"{TIMEOUT_HEADER} is given twice")
    seconds = float(headers[0]) if _SECONDS.fullmatch(headers[0].strip()) else 0.0
    if not 0 < seconds < float("inf"):
        raise _bad(f"{TIMEOUT_HEADER} is not a number of seconds above 0")
    return seconds - offset if seconds > offset else seconds / 2


def _only(request: web.Request, known: tuple[str, ...]) -> None:
    for name in request.query:
        if name not in known:
            raise _bad(_unknown("parameter", name, known))


def _kinds(request: web.Request) -> list[str]:
    kinds = request.query.getall("collector", [])
    for kind in kinds:
        if kind not in COLLECTORS:
            raise _bad(_unknown("collector", kind, COLLECTORS))
    return kinds


def _bad(sentence: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"{sentence}\n")


LISTED = 20


def _unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Return a sentence that names what is unknown and what is known, the likeliest first."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, LISTED)
    names = [*close, *(name for name in names if name not in close)]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"unknown {what} {given[:80]!r}; known: {', '.join(names[:LISTED]) or 'none'}{more}"


def parse_address(text: str) -> tuple[str, int]:
    """Read a listen address: `:10054` (both IP families), `127.0.0.1:10054`, `[::1]:10054`. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004
        raise ValueError(f"not a listen address: {text!r}; write :10054, 127.0.0.1:10054 or [::1]:10054")
    return match["ip6"] or match["host"], int(match["port"])


def address_text(host: str, port: int) -> str:
    """Return an address as `parse_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_listener(host: str, port: int) -> socket.socket:
    """Open a listening socket; without a host one for both IP families, or for IPv4 where there is no IPv6."""
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return socket.create_server(("", port), backlog=128)


@contextlib.asynccontextmanager
async def serving(exporter: Exporter, addresses: Iterable[tuple[str, int]]) -> AsyncIterator[list[tuple[str, int]]]:
    """Serve on all addresses, and give the (host, port) really listened on.

    At the end those in flight are answered first; until then the listeners stay open and say 503. Raises OSError for
    an address that cannot be listened on.
    """
    runner = web.AppRunner(exporter.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listening = []
        for host, port in addresses:
            try:
                listener = open_listener(host, port)
            except OSError as error:
                words = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
                raise OSError(error.errno, f"cannot listen on {address_text(host, port)}: {words}") from error
            await web.SockSite(runner, listener).start()
            listening.append((host, int(listener.getsockname()[1])))
        exporter.ready = True
        yield listening
    finally:
        await exporter.drain()
        await runner.cleanup()


async def until_signalled() -> None:
    """Wait for SIGTERM or SIGINT. A second one ends the process the ordinary, rude way."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    log.info("stopping: answering the requests in flight")
