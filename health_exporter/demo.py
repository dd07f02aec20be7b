"""Built-in simulated targets of every kind: what `health-exporter demo` serves.

Some of them are unwell for good, each in a way that its documented check does not show; bundles crash and come back
by themselves; and after two minutes one thing after another begins to break for a while, see `Stage.acts`.
"""

import asyncio
import contextlib
import itertools
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from collectors import COLLECTORS
from collectors.settings import TargetSettings, TlsConfig
from collectors.tls import TlsContexts, tls_contexts
from health_exporter.simulators.bundles import Bundle, BundleHost
from health_exporter.simulators.dns import DnsServer
from health_exporter.simulators.healthchecks import Healthchecks, Job, SimulatedCheck
from health_exporter.simulators.pryv import PryvCore, PryvDeployment
from health_exporter.simulators.system_health import SystemHealth

log = logging.getLogger(__name__)

ACT_SECONDS = 120.0
CERTIFICATE = Path(__file__).parent / "simulators" / "demo.pem"
"""Certificate and key of the one target that speaks TLS."""
BUNDLES = (
    Bundle("bash"),
    Bundle("bash"),
    Bundle("weather", "crash_loop"),
    Bundle("search", "crash_once", at=60.0),
    Bundle("mail", "doomed", at=30.0),
    Bundle("calendar", "stopped"),
    Bundle("home"),
)


class Stage:
    """The simulated servers, and what can happen to them."""

    def __init__(self) -> None:
        """Set up everything; nothing listens before the stage is entered."""
        self.single = PryvCore()
        self.deployment = PryvDeployment("pryv.test", {"core-a": "health-a", "core-b": "health-b"})
        self.dns = DnsServer("pryv.test")
        self.host = BundleHost(BUNDLES, "recon")
        self.public_host = BundleHost((Bundle("bash"), Bundle("weather", "crash_loop")))
        self.documented_host = BundleHost((Bundle("bash"), Bundle("weather")), "documented")
        self.media = SystemHealth(ssl=_server_context())
        self.heartbeat = Job(10)
        self.cron = Healthchecks()
        self.cron.checks.append(SimulatedCheck("Heartbeat", "heartbeat", timeout=15, grace=15, job=self.heartbeat))

    async def enter(self, stack: contextlib.AsyncExitStack) -> None:
        """Start every server, and make those unwell that are so for good."""
        for server in (
            self.single,
            self.deployment,
            self.dns,
            self.host,
            self.public_host,
            self.documented_host,
            self.media,
            self.cron,
        ):
            await stack.enter_async_context(server)
        self.dns.records.update(self.deployment.records())
        # A series worker that was started while its database was away hangs for ever; the guide's check passes.
        self.deployment.cores["core-b"].faults.hfs_worker = "stuck"
        self.single.faults.token_expires = self.cron.clock() + 40 * 86400
        self.media.faults.components = {"qdrant": "degraded"}
        self.media.faults.scripts_modified = 13
        self.media.faults.anomalies = {("stale_processing", "warn"): 3, ("unregistered_with_uuid", "info"): 12}
        self.media.faults.tmdb = "reachable"

    def targets(self) -> list[TargetSettings]:
        """Return the targets on these servers."""
        pryv = [_target("pryv", "pryv-single", self.single, username=self.single.username, token=self.single.token)]
        for name, core in self.deployment.cores.items():
            account = {"username": core.username, "token": core.token, "domain": "pryv.test"}
            nameservers = {"nameservers": [f"127.0.0.1:{self.dns.port}"]}
            pryv.append(_target("pryv", f"pryv-{name}", core, dns=nameservers, timeout="1s", **account))
        return [
            *pryv,
            _target("bundles", "bundle-host", self.host, expect=["bash", "weather", "browser"], ignore=["home"]),
            _target("bundles", "bundle-host-public", self.public_host),
            _target("bundles", "bundle-host-documented", self.documented_host, uptime_unit="seconds"),
            _target(
                "system_health",
                "media",
                self.media,
                url=f"https://localhost:{self.media.server.port}",
                tls_config={"ca_file": str(CERTIFICATE)},
                api_key=self.media.api_key,
                checks=["health", "detailed", "consistency", "sftpgo"],
                labels={"team": "media"},
            ),
            _target(
                "healthchecks",
                "cron",
                self.cron,
                api_key=self.cron.read_write_key,
                checks=["status", "checks", "integrations", "flips"],
                flips={"interval": "1m"},
                tag_metrics=True,
            ),
        ]

    def acts(self) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
        """Return what breaks in turn: in words, how it begins and how it ends."""
        single, media, dns = self.single.faults, self.media.faults, self.dns

        def change(thing: object, name: str, value: object) -> Callable[[], None]:
            return lambda: setattr(thing, name, value)

        return [
            (
                "PostgreSQL of pryv-single is down; its documented registration check still passes",
                change(single, "postgres", "refused"),
                change(single, "postgres", "up"),
            ),
            (
                "redis of media is in error",
                change(media, "components", {"redis": "error"}),
                change(media, "components", {"qdrant": "degraded"}),
            ),
            (
                "the alert loop of cron is dead and a job has stopped; every call answers 200, and nobody is told",
                self._silence_cron,
                self._mend_cron,
            ),
            (
                "DNS of pryv.test knows nothing any more",
                change(dns, "mode", "nxdomain"),
                change(dns, "mode", "up"),
            ),
        ]

    def _silence_cron(self) -> None:
        self.cron.faults.sendalerts, self.heartbeat.stopped = "dead", True

    def _mend_cron(self) -> None:
        self.cron.faults.sendalerts, self.heartbeat.stopped = "alive", False

    async def play(self) -> None:
        """Let one thing after another break for a while, for ever."""
        for words, begin, end in itertools.cycle(self.acts()):
            await asyncio.sleep(ACT_SECONDS)
            log.info("the demo breaks something", extra={"what": words})
            begin()
            await asyncio.sleep(ACT_SECONDS)
            end()


@contextlib.asynccontextmanager
async def simulated() -> AsyncIterator[tuple[list[TargetSettings], Mapping[TlsConfig, TlsContexts]]]:
    """Run the simulated servers and give the targets on them, with their TLS contexts."""
    async with contextlib.AsyncExitStack() as stack:
        stage = Stage()
        await stage.enter(stack)
        play = asyncio.create_task(stage.play())
        try:
            targets = stage.targets()
            yield targets, {config: tls_contexts(config) for config in {target.tls_config for target in targets}}
        finally:
            play.cancel()
            await asyncio.gather(play, return_exceptions=True)


def _server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


def _target(kind: str, name: str, server: Any, **settings: Any) -> TargetSettings:
    written = {"name": name, "collector": kind, "url": server.url, **settings}
    return COLLECTORS[kind].settings_model.model_validate(written)


def greeting(url: str, targets: list[TargetSettings]) -> str:
    """Return what to tell somebody who has just started the demo at this URL."""
    return f"""
Health Exporter serves {len(targets)} simulated targets.

  open  {url}/
  try   curl -s '{url}/probe?target=pryv-core-b' | grep -v '^#'

Every {ACT_SECONDS:.0f} s something else breaks, or is mended. Ctrl-C stops it."""
