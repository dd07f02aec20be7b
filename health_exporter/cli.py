"""The command line: commands and flags, and the one place where the parts are put together."""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import platform
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from yarl import URL

from collectors import COLLECTORS
from collectors.base import Clock
from collectors.http import HttpClient
from collectors.settings import Duration, PositiveDuration, TargetSettings
from collectors.tls import TlsContexts
from health_exporter import __version__, demo, discovery, log, reference
from health_exporter.config import Config, ConfigError, load
from health_exporter.exporter_metrics import RELOAD_SUCCESSFUL, RELOAD_TIME, ExporterMetrics, revision
from health_exporter.exposition import PLAIN, encode_target, join
from health_exporter.outcome import Outcome
from health_exporter.prober import Budget, Prober
from health_exporter.web import Exporter, WebOptions, address_text, parse_address, serving, until_signalled

logger = logging.getLogger("health_exporter")

USER_AGENT = f"health_exporter/{__version__}"
DEFAULT_ADDRESS = ":10054"
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    log.set_up(options.log_level, options.log_format)
    command: Callable[[argparse.Namespace], int] = _COMMANDS[options.command or "serve"]
    try:
        status = command(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing more is to be written, not at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


# --- commands -------------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    config = _load(options)
    if config is None:
        return 1
    for warning in config.warnings:
        logger.warning("unwise config", extra={"detail": warning})
    return _run(_serving(options, config.targets, config.tls))


def _demo(options: argparse.Namespace) -> int:
    return _run(_serving_demo(options))


def _check(options: argparse.Namespace) -> int:
    try:
        config = load(*_load_arguments(options))
    except ConfigError as error:
        print(error)
        return 1
    for warning in config.warnings:
        print(f"{warning} (a warning)")
    print(f"{config.path}: {len(config.targets)} targets, no errors")
    return 0


def _probe(options: argparse.Namespace) -> int:
    config = _load(options)
    if config is None:
        return 2
    settings = {target.name: target for target in config.targets}
    if options.target not in settings:
        print(f"unknown target {options.target!r}; known: {', '.join(sorted(settings))}", file=sys.stderr)
        return 2
    outcome = asyncio.run(_probe_once(settings[options.target], config.tls, options.timeout))
    print(_as_json(outcome) if options.format == "json" else _as_text(outcome, options.timeout), end="")
    return 0 if outcome.success else 1


def _scrape_config(options: argparse.Namespace) -> int:
    addresses = options.address or [f"localhost{DEFAULT_ADDRESS}"]
    targets: Sequence[TargetSettings] = ()
    if options.style == "probe" or (options.style == "metrics" and len(addresses) > 1):
        config = _load(options)
        if config is None:
            return 1
        targets = config.targets
    scheme = options.web_external_url.scheme if options.web_external_url else "http"
    prefix = _web_options(options).route_prefix
    print(discovery.scrape_config(options.style, targets, addresses, scheme, prefix), end="")
    return 0


def _metrics(_: argparse.Namespace) -> int:
    print(reference.markdown(), end="")
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "serve": _serve,
    "check": _check,
    "probe": _probe,
    "demo": _demo,
    "scrape-config": _scrape_config,
    "metrics": _metrics,
}


# --- putting the parts together -------------------------------------------------------------------------------------


def _load_arguments(options: argparse.Namespace) -> tuple[Path, dict[str, type[TargetSettings]], frozenset[str]]:
    kinds = {kind: collector.settings_model for kind, collector in COLLECTORS.items()}
    return Path(options.config_file), kinds, reference.RESERVED_LABELS


def _load(options: argparse.Namespace) -> Config | None:
    try:
        return load(*_load_arguments(options))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None


def _run(serve: Coroutine[Any, Any, None]) -> int:
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve)
    except OSError as error:
        logger.error("cannot serve", extra={"detail": error.strerror or str(error)})  # noqa: TRY400
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's if it is installed: it is an extra, chosen by whoever installs it."""
    with contextlib.suppress(ImportError):
        import uvloop  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return None


async def _serving(
    options: argparse.Namespace, targets: Iterable[TargetSettings], tls: Mapping[Any, TlsContexts]
) -> None:
    async with _exporter(options, targets, tls):
        await until_signalled()


async def _serving_demo(options: argparse.Namespace) -> None:
    async with (
        demo.simulated() as (targets, tls),
        _exporter(options, targets, tls) as listening,
    ):
        port = listening[0][1]
        print(demo.greeting(f"http://localhost:{port}{_web_options(options).route_prefix}", targets), flush=True)
        await until_signalled()


@contextlib.asynccontextmanager
async def _exporter(
    options: argparse.Namespace, targets: Iterable[TargetSettings], tls: Mapping[Any, TlsContexts]
) -> AsyncIterator[list[tuple[str, int]]]:
    clock = Clock()
    metrics = ExporterMetrics()
    metrics.gauge(RELOAD_SUCCESSFUL).set(1)
    metrics.gauge(RELOAD_TIME).set(clock.wall())
    prober = Prober(targets, tls, HttpClient(USER_AGENT, clock), metrics)
    exporter = Exporter(prober, metrics, _web_options(options))
    async with serving(exporter, _listen_addresses(options)) as listening:
        # What is there now stays; looking through it again and again would be a sixth of a scrape's CPU.
        gc.collect()
        gc.freeze()
        for host, port in listening:
            logger.info("listening", extra={"address": address_text(host, port), "targets": len(prober.targets)})
        yield listening


async def _probe_once(settings: TargetSettings, tls: Mapping[Any, TlsContexts], seconds: float) -> Outcome:
    prober = Prober([settings], tls, HttpClient(USER_AGENT, Clock()), ExporterMetrics())
    try:
        return await prober.probe(settings.name, Budget.starting_now(seconds))
    finally:
        await prober.close()


def _as_text(outcome: Outcome, seconds: float) -> str:
    return join([encode_target(outcome, seconds, static_labels=False)], PLAIN).decode()


def _as_json(outcome: Outcome) -> str:
    checks = {
        report.check: {
            "success": report.reason is None,
            "reason": report.reason,
            "detail": report.detail,
            "duration_seconds": report.duration,
            "http_status_code": report.status,
            "http_duration_seconds": report.phases,
        }
        for report in outcome.reports
    }
    samples = [
        {"metric": sample.metric.name, "labels": dict(zip(sample.metric.labels, sample.values, strict=True))}
        | {"value": sample.number}
        for sample in (*(one for report in outcome.reports for one in report.samples.values()), *outcome.concluded)
    ]
    answer = {
        "target": outcome.settings.name,
        "collector": outcome.settings.collector,
        "success": outcome.success,
        "duration_seconds": outcome.duration,
        "checks": checks,
        "samples": samples,
    }
    return json.dumps(answer, indent=2) + "\n"


# --- flags ----------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    """Return the parser; flags stand before or after the command."""
    version = f"health_exporter, version {__version__} (revision {revision() or 'unknown'}, python "
    parser = argparse.ArgumentParser(
        "health-exporter", description=f"{sys.modules['health_exporter'].__doc__}", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"{version}{platform.python_version()})")
    _add_flags(parser, lambda default: default)
    parser.set_defaults(web_listen_address_after=None)
    commands = parser.add_subparsers(dest="command", metavar="command")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        _add_flags(command, lambda _: argparse.SUPPRESS, after="_after")
        return command

    add("serve", "serve the configured targets (the default)")
    add("check", "check the config and print every error in it")
    probe = add("probe", "probe one configured target once; the exit status is 0 if it is healthy, 1 if not")
    probe.add_argument("target", help="name of the target")
    probe.add_argument("--timeout", type=_duration, default=10.0, help="budget of the probe (default 10s)")
    probe.add_argument("--format", choices=("text", "json"), default="text", help="exposition format, or JSON")
    config = add("scrape-config", "print a ready Prometheus config")
    config.add_argument(
        "--style",
        choices=discovery.STYLES,
        default="metrics",
        help="scrape /metrics (default), /probe for each target listed, or /probe for each target of /sd",
    )
    config.add_argument(
        "--address",
        action="append",
        type=_host_port,
        metavar="HOST:PORT",
        help="where Prometheus reaches the exporter (default localhost:10054); several share the targets",
    )
    add("demo", "serve built-in simulated targets; needs no config")
    add("metrics", "print the metric reference as Markdown")
    return parser


def _add_flags(parser: argparse.ArgumentParser, default: Callable[[Any], Any], after: str = "") -> None:
    """Add the flags; `after` marks the repeatable one where argparse would forget what stood before the command."""

    def flag(name: str, **options: Any) -> None:
        options["default"] = default(options.get("default"))
        suffix = after if options.get("action") == "append" else ""
        dest = name.removeprefix("--").replace(".", "_").replace("-", "_") + suffix
        parser.add_argument(name, dest=dest, **options)

    flag("--config.file", default="config.yml", metavar="FILE", help="the config (default config.yml)")
    flag(
        "--web.listen-address",
        action="append",
        type=_address,
        metavar="ADDRESS",
        help="where to listen, repeatable (default :10054, both IP families)",
    )
    flag("--web.external-url", type=_external_url, metavar="URL", help="the URL under which the exporter is reached")
    flag("--web.route-prefix", metavar="PATH", help="prefix of all paths (default: the path of the external URL)")
    flag(
        "--web.max-requests",
        type=_count,
        default=512,
        metavar="N",
        help="requests to /metrics and /probe at a time, more get 503 (default 512)",
    )
    flag(
        "--web.disable-exporter-metrics",
        action="store_true",
        default=False,
        help="leave the exporter's own metrics out of /metrics",
    )
    flag(
        "--web.probe-on-metrics",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="probe the targets when /metrics is asked",
    )
    flag(
        "--timeout-offset",
        type=_offset,
        default=0.5,
        metavar="DURATION",
        help="taken off Prometheus' scrape timeout, so that the answer is there in time (default 0.5s)",
    )
    flag("--log.level", choices=log.LEVELS, default="info", help="log this and above (default info)")
    flag("--log.format", choices=("logfmt", "json"), default="logfmt", help="how to write the log (default logfmt)")


def _duration(text: str, kind: TypeAdapter[float] = TypeAdapter(PositiveDuration)) -> float:  # noqa: B008
    try:
        return kind.validate_python(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.errors()[0]['msg']}") from error


def _offset(text: str) -> float:
    return _duration(text, TypeAdapter(Duration))


def _address(text: str) -> tuple[str, int]:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _listen_addresses(options: argparse.Namespace) -> list[tuple[str, int]]:
    given = [*(options.web_listen_address or ()), *(options.web_listen_address_after or ())]
    return given or [parse_address(DEFAULT_ADDRESS)]


def _host_port(text: str) -> str:
    host, _ = _address(text)
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} has no host: write HOST:PORT")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _external_url(text: str) -> URL:
    url = URL(text)
    if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http or https URL without query")
    return url


def _web_options(options: argparse.Namespace) -> WebOptions:
    prefix = options.web_route_prefix
    if prefix is None:
        prefix = options.web_external_url.path if options.web_external_url else ""
    prefix = prefix.strip("/")
    return WebOptions(
        route_prefix=f"/{prefix}" if prefix else "",
        max_requests=options.web_max_requests,
        exporter_metrics=not options.web_disable_exporter_metrics,
        probe_on_metrics=options.web_probe_on_metrics,
        timeout_offset=options.timeout_offset,
        external=options.web_external_url,
    )
