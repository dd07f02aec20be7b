"""End to end, from a fault to its notification: simulators, exporters, Prometheus, Alertmanager, a webhook.

Everything but the simulators and the webhook is the real program, with the shipped rules, the shipped Alertmanager
example and the scrape configs that the exporter prints, in quick motion: every duration is divided by `FACTOR`, so
that `for: 5m` is 10 s and a scrape a second is one every 30 s. The three scrape styles play at once, each with
programs of its own; two of them share their targets between two exporters. Faults are switched on, looked at and
mended in steps, one fixture a step, which notes what it saw; the tests only compare.

A notification of HealthErrorBudgetBurn is allowed: its hour (two minutes here) is full only if the machine is slow.
"""

import asyncio
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from health_exporter.simulators.bundles import BundleHost
from health_exporter.simulators.dns import DnsServer
from health_exporter.simulators.healthchecks import Healthchecks, SimulatedCheck
from health_exporter.simulators.pryv import PryvCore, PryvDeployment
from health_exporter.simulators.system_health import SystemHealth
from health_exporter.simulators.wire import Answer, Request, Server
from tests.inhibition import InhibitRule, notifying
from tests.programs import ROOT, ask, get, program
from tests.scaling import scale_route, scale_rules

pytestmark = pytest.mark.e2e

FACTOR = 30
PATIENCE = 90.0
"""Seconds that a step may take at most; on an idle machine it needs a quarter of that."""

STYLES = ("metrics", "probe", "http-sd")
REPLICATED = ("metrics", "http-sd")
RULE_FILES = sorted(path for path in (ROOT / "alerts").glob("*.yml") if not path.name.startswith("alertmanager"))
EXAMPLE: dict[str, Any] = yaml.safe_load((ROOT / "alerts" / "alertmanager.example.yml").read_text(encoding="utf-8"))
INHIBIT_RULES = tuple(InhibitRule.parse(written) for written in EXAMPLE["inhibit_rules"])
RECEIVER = {"critical": "pages", "warning": "tickets"}
ALLOWED = {"HealthErrorBudgetBurn"}

Labels = Mapping[str, str]


# --- what is played -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """A notification: its labels, and what its description must say."""

    name: str
    severity: Literal["critical", "warning"]
    labels: Labels
    words: tuple[str, ...] = ()

    def is_about(self, labels: Labels) -> bool:
        """Tell whether an alert with these labels is the one."""
        wanted = {"alertname": self.name, "severity": self.severity, **self.labels}
        return wanted.items() <= labels.items()


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks: what must be told about it, and what must fire and stay silent."""

    begin: Callable[[], None]
    end: Callable[[], None]
    told: tuple[Expected, ...]
    hidden: tuple[Labels, ...] = ()


@dataclass(slots=True)
class Cast:
    """The servers of one style, the targets on them, and what happens to them."""

    servers: dict[str, Server] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add(self, name: str, collector: str, server: Any, **settings: Any) -> None:
        """Add a target."""
        self.servers[name] = server.server
        self.targets.append({"name": name, "collector": collector, "url": server.url, **settings})


def switch(thing: object, **values: object) -> Callable[[], None]:
    def act() -> None:
        for name, value in values.items():
            setattr(thing, name, value)

    return act


def pryv_account(core: PryvCore) -> dict[str, Any]:
    # The remembered answers in quick motion, too.
    intervals = {"storage_interval": "2s", "access_interval": "2s", "auth_backoff": "2s"}
    return {"username": core.username, "token": core.token, **intervals}


def checks_up(number: int) -> list[SimulatedCheck]:
    checks = [SimulatedCheck(f"Nightly dump {n}", f"nightly-dump-{n}", timeout=3600, grace=60) for n in range(number)]
    for check in checks:
        check.ping(time.time())
    return checks


async def cast_metrics(stack: contextlib.AsyncExitStack) -> Cast:
    cast = Cast()
    core = await stack.enter_async_context(PryvCore())
    media = await stack.enter_async_context(SystemHealth())
    cron = await stack.enter_async_context(Healthchecks(checks_up(2)))
    host = await stack.enter_async_context(BundleHost(mode="recon"))
    cast.add("pryv-pg", "pryv", core, **pryv_account(core))
    checks = ["health", "detailed", "sftpgo"]
    cast.add("media-redis", "system_health", media, api_key=media.api_key, checks=checks)
    cast.add("cron-key", "healthchecks", cron, api_key=cron.read_only_key)
    cast.add("hosts", "bundles", host, expect=["bash"])
    cast.faults = [
        Fault(
            switch(core.faults, postgres="refused"),
            switch(core.faults, postgres="up"),
            (
                Expected(
                    "HealthPryvStorageDown",
                    "critical",
                    {"target": "pryv-pg"},
                    ("GET /events fails", "platform=http_status", "series=http_status", "storage=http_status"),
                ),
            ),
            ({"alertname": "HealthCheckFailing", "target": "pryv-pg", "check": "access"},),
        ),
        Fault(
            switch(media.faults, components={"redis": "error"}, sftpgo="failing"),
            switch(media.faults, components={}, sftpgo="ok"),
            (
                Expected(
                    "HealthSystemComponentDown",
                    "critical",
                    {"target": "media-redis", "component": "redis"},
                    ("redis is in error",),
                ),
            ),
            ({"alertname": "HealthCheckFailing", "target": "media-redis", "check": "sftpgo"},),
        ),
        Fault(
            switch(cron, read_only_key="hcr_anotherReadOnlyKey0000000000"),
            switch(cron, read_only_key=cron.read_only_key),
            (Expected("HealthTargetAuthFailing", "warning", {"target": "cron-key"}, ("checks=auth",)),),
        ),
    ]
    return cast


async def cast_probe(stack: contextlib.AsyncExitStack) -> Cast:
    cast = Cast()
    core = await stack.enter_async_context(PryvCore())
    media = await stack.enter_async_context(SystemHealth())
    cron = await stack.enter_async_context(Healthchecks(checks_up(6)))
    host = await stack.enter_async_context(BundleHost(mode="recon"))
    cast.add("pryv-hfs", "pryv", core, timeout="500ms", **pryv_account(core))
    # Not consistency: it is asked again a minute after a failure, which no setting shortens.
    cast.add("media-dead", "system_health", media, api_key=media.api_key, checks=["health", "detailed", "sftpgo"])
    cast.add("cron-mass", "healthchecks", cron, api_key=cron.read_only_key, labels={"team": "batch"})
    cast.add("hosts", "bundles", host, expect=["bash"])

    def ping(kind: Literal["success", "fail"]) -> Callable[[], None]:
        def act() -> None:
            for check in cron.checks:
                check.ping(time.time(), kind)

        return act

    cast.faults = [
        Fault(
            switch(core.faults, hfs_worker="stuck"),
            switch(core.faults, hfs_worker="up"),
            (
                Expected(
                    "HealthPryvSeriesStuck",
                    "critical",
                    {"target": "pryv-hfs"},
                    ("GET on a series fails", "restart it", "series=timeout"),
                ),
            ),
        ),
        Fault(
            switch(media.faults, process="dead"),
            switch(media.faults, process="up"),
            (
                Expected(
                    "HealthTargetDown",
                    "critical",
                    {"target": "media-dead", "collector": "system_health"},
                    ("detailed=connect", "health=connect"),
                ),
            ),
            tuple(
                {"alertname": "HealthCheckFailing", "target": "media-dead", "check": check}
                for check in ("health", "detailed", "sftpgo")
            ),
        ),
        Fault(
            ping("fail"),
            ping("success"),
            (
                Expected(
                    "HealthCronManyChecksDown",
                    "critical",
                    {"target": "cron-mass", "team": "batch"},
                    ("6 checks are down",),
                ),
            ),
            tuple(
                {"alertname": "HealthCronCheckDown", "target": "cron-mass", "unique_key": check.unique_key}
                for check in cron.checks
            ),
        ),
        Fault(
            switch(host.faults, states={"bash": "dead"}),
            switch(host.faults, states={}),
            (Expected("HealthBundleDown", "critical", {"target": "hosts", "bundle": "bash"}, ("bash is listed",)),),
        ),
    ]
    return cast


async def cast_http_sd(stack: contextlib.AsyncExitStack) -> Cast:
    cast = Cast()
    core = await stack.enter_async_context(PryvCore())
    deployment = await stack.enter_async_context(PryvDeployment())
    dns = await stack.enter_async_context(DnsServer(deployment.domain, deployment.records()))
    cron = await stack.enter_async_context(Healthchecks(checks_up(1)))
    host = await stack.enter_async_context(BundleHost())
    one_of_two = deployment.cores["core-a"]
    cast.add("pryv-token", "pryv", core, **pryv_account(core))
    multi = {"domain": deployment.domain, "dns": {"nameservers": [f"127.0.0.1:{dns.port}"]}}
    cast.add("pryv-multi", "pryv", one_of_two, **multi, **pryv_account(one_of_two))
    cast.add("cron-loop", "healthchecks", cron, api_key=cron.read_only_key, labels={"team": "batch"})
    cast.add("hosts-sd", "bundles", host)

    def loop_dies() -> None:
        cron.faults.sendalerts = "dead"
        cron.checks[0].last_ping = time.time() - 3600 - 60 - 300

    def loop_lives() -> None:
        cron.checks[0].ping(time.time())
        cron.faults.sendalerts = "alive"

    def platform(state: Literal["up", "refused"]) -> Callable[[], None]:
        # Without its platform a deployment answers NXDOMAIN for every name.
        def act() -> None:
            one_of_two.faults.platform = state
            dns.mode = "up" if state == "up" else "nxdomain"

        return act

    cast.faults = [
        Fault(
            switch(core.faults, token="revoked"),
            switch(core.faults, token="valid"),
            (
                Expected(
                    "HealthTargetAuthFailing",
                    "warning",
                    {"target": "pryv-token"},
                    ("access=auth", "storage=auth"),
                ),
            ),
        ),
        Fault(
            platform("refused"),
            platform("up"),
            (
                Expected(
                    "HealthPryvPlatformDown",
                    "critical",
                    {"target": "pryv-multi"},
                    ("/reg/hostings fails", "platform=http_status"),
                ),
            ),
            tuple(
                {"alertname": name, "target": "pryv-multi"}
                for name in ("HealthPryvStorageDown", "HealthPryvDnsFailing", "HealthCheckFailing")
            ),
        ),
        Fault(
            loop_dies,
            loop_lives,
            (
                Expected(
                    "HealthCronAlertingStuck",
                    "critical",
                    {"target": "cron-loop", "team": "batch"},
                    ("sendalerts", "overdue for 5m"),
                ),
                # Nobody else tells the owner of the job.
                Expected(
                    "HealthCronCheckDown",
                    "warning",
                    {"target": "cron-loop", "team": "batch"},
                    ("Nightly dump 0 (nightly-dump-0)",),
                ),
            ),
        ),
    ]
    return cast


CASTS = {"metrics": cast_metrics, "probe": cast_probe, "http-sd": cast_http_sd}


# --- the programs ---------------------------------------------------------------------------------------------------


def alertmanager_program() -> str:
    """Return the path of Alertmanager, which Debian calls otherwise."""
    return shutil.which("prometheus-alertmanager") or program("alertmanager")


class Program:
    """A program whose output goes to a file; it says there where it listens."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        """Start it."""
        self.name = name
        self.log = log
        self._begin = log.stat().st_size if log.exists() else 0
        with log.open("a") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)

    def address(self) -> str:
        """Wait until it listens, and return HOST:PORT."""
        end = time.monotonic() + PATIENCE
        while True:
            with self.log.open(errors="replace") as written:
                written.seek(self._begin)
                found = re.search(r'msg="?(?:Listening on|listening)"?.* address=(\S+)', written.read())
            if found:
                return found[1]
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not listen:\n{self.tail()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def tail(self) -> str:
        """Return the end of its output."""
        lines = self.log.read_text(errors="replace").splitlines()[-25:]
        return "\n".join([f"----- {self.name} ({self.log}), exit status {self._process.poll()}", *lines])


@dataclass(frozen=True, slots=True)
class Note:
    """One alert of one notification."""

    receiver: str
    status: str
    labels: Labels
    description: str

    def __repr__(self) -> str:
        """Show what tells it from others."""
        about = {name: value for name, value in self.labels.items() if name not in ("alertname", "severity")}
        return f"<{self.status} {self.labels['alertname']} to {self.receiver} {about} {self.description!r}>"


@dataclass(slots=True)
class Stage:
    """One style: its cast, its programs, and what it has told."""

    style: str
    cast: Cast
    directory: Path
    stack: contextlib.ExitStack
    webhook: str
    notes: list[Note] = field(default_factory=list)
    programs: dict[str, Program] = field(default_factory=dict)
    exporters: dict[str, str] = field(default_factory=dict)
    """The names of the replicas and their addresses."""
    prometheus: str = ""
    alertmanager: str = ""

    def run(self, name: str, *command: str) -> Program:
        """Start a program that ends with the stage at the latest."""
        started = Program(name, command, self.directory / f"{name}.log")
        self.stack.callback(started.kill)
        self.programs[name] = started
        return started

    # Starting, in three steps, so that the programs of all styles start side by side.

    def start_exporters(self) -> None:
        for name in ("a", "b")[: 2 if self.style in REPLICATED else 1]:
            # The replicas' configs are the same but for this header, which tells the simulators who asks.
            config = {"defaults": {"headers": {"X-Replica": name}}, "targets": self.cast.targets}
            (self.directory / f"{name}.yml").write_text(json.dumps(config))
            self.start_exporter(name, "127.0.0.1:0")
        self.run(
            "alertmanager",
            alertmanager_program(),
            f"--config.file={self.write('alertmanager.yml', self.alertmanager_config())}",
            f"--storage.path={self.directory / 'alertmanager'}",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        )

    def start_exporter(self, name: str, address: str) -> Program:
        command = [sys.executable, "exporter.py", "--config.file", str(self.directory / f"{name}.yml")]
        return self.run(name, *command, "--web.listen-address", address, "--timeout-offset", "0.1s")

    def start_prometheus(self) -> None:
        self.exporters = {name: one.address() for name, one in self.programs.items() if name != "alertmanager"}
        self.alertmanager = f"http://{self.programs['alertmanager'].address()}"
        self.run(
            "prometheus",
            program("prometheus"),
            f"--config.file={self.write('prometheus.yml', self.prometheus_config())}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            "--query.lookback-delta=10s",
        )

    def finish_start(self) -> None:
        self.prometheus = f"http://{self.programs['prometheus'].address()}"

    def write(self, name: str, document: Any) -> Path:
        path = self.directory / name
        path.write_text(json.dumps(document))
        return path

    def alertmanager_config(self) -> dict[str, Any]:
        """Return the example in quick motion, with the webhook for its receivers."""
        receivers = [
            one | {"webhook_configs": [{"url": f"{self.webhook}/{self.style}/{one['name']}"}]}
            if "webhook_configs" in one
            else one
            for one in EXAMPLE["receivers"]
        ]
        return EXAMPLE | {"route": scale_route(EXAMPLE["route"], FACTOR), "receivers": receivers}

    def prometheus_config(self) -> dict[str, Any]:
        """Return what the exporter prints for this style, in quick motion, with rules and Alertmanager."""
        command = [sys.executable, "exporter.py", "scrape-config", "--style", self.style]
        command += [f"--config.file={self.directory / 'a.yml'}"]
        command += [f"--address={address}" for address in self.exporters.values()]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
        config: dict[str, Any] = yaml.safe_load(printed)
        for job in config["scrape_configs"]:
            for discovery in job.get("http_sd_configs", ()):
                discovery["refresh_interval"] = "2s"
        rules = self.directory / "rules"
        rules.mkdir()
        for path in RULE_FILES:
            scaled = scale_rules(yaml.safe_load(path.read_text(encoding="utf-8")), FACTOR)
            (rules / path.name).write_text(yaml.safe_dump(scaled))
        return config | {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
            "rule_files": [str(rules / "*.yml")],
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": [self.alertmanager.removeprefix("http://")]}]}]
            },
        }

    # Looking.

    @property
    def names(self) -> list[str]:
        return [target["name"] for target in self.cast.targets]

    def told(self, status: str = "firing") -> list[Note]:
        return [note for note in list(self.notes) if note.status == status]

    def has_told(self, expected: Iterable[Expected], status: str = "firing", since: int = 0) -> bool:
        notes = [note for note in self.notes[since:] if note.status == status]
        return all(any(one.is_about(note.labels) for note in notes) for one in expected)

    def alerts(self) -> list[tuple[dict[str, str], bool]]:
        """Return the labels of every alert Alertmanager holds, and whether it is inhibited."""
        held = json.loads(get(f"{self.alertmanager}/api/v2/alerts"))
        return [(one["labels"], bool(one["status"]["inhibitedBy"])) for one in held]

    def hides(self, hidden: Iterable[Labels]) -> bool:
        inhibited = [labels for labels, by_another in self.alerts() if by_another]
        return all(any(one.items() <= labels.items() for labels in inhibited) for one in hidden)

    def is_quiet(self) -> bool:
        return all(labels["alertname"] in ALLOWED for labels, _ in self.alerts())

    def probed_through(self) -> dict[str, set[str]]:
        """Return the exporters that probe each target, as Prometheus has it."""
        found: dict[str, set[str]] = {name: set() for name in self.names}
        for one in ask(self.prometheus, "probe_success"):
            labels = one["metric"]
            found[labels["target"]].add(labels.get("exporter", labels["instance"]))
        return found

    def wait(self, condition: Callable[[], bool], end: float) -> bool:
        """Wait for a condition; the tests say what is missing if it does not come."""
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if condition():
                    return True
            time.sleep(0.1)
        return False

    def evaluator_agrees(self, end: float) -> list[tuple[dict[str, str], bool]]:
        """Return what Alertmanager inhibits, as soon as the evaluator says so too, or the last there was."""
        held: list[tuple[dict[str, str], bool]] = []

        def agrees() -> bool:
            held[:] = self.alerts()
            return verdicts(held) == held

        self.wait(agrees, end)
        return held


def verdicts(held: Sequence[tuple[dict[str, str], bool]]) -> list[tuple[dict[str, str], bool]]:
    """Return the alerts, with what the evaluator says of each: whether it is inhibited."""
    firing = [labels for labels, _ in held]
    left = notifying(INHIBIT_RULES, firing)
    return [(labels, labels not in left) for labels in firing]


class Theatre:
    """The event loop of the simulators and of the webhook, in a thread, and the stage of each style."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self.webhook = Server(self._receive)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @contextlib.contextmanager
    def open(self, directory: Path) -> Iterator[None]:
        """Start everything, and end everything."""
        self._thread.start()
        try:
            with contextlib.ExitStack() as stack:
                cast = self._cast()
                casts = self._await(cast.__aenter__())
                stack.callback(lambda: self._await(cast.__aexit__(None, None, None)))
                url = f"http://{self.webhook.host}:{self.webhook.port}"
                for style in STYLES:
                    (directory / style).mkdir()
                    self.stages[style] = Stage(style, casts[style], directory / style, stack, url)
                for step in (Stage.start_exporters, Stage.start_prometheus, Stage.finish_start):
                    for stage in self.stages.values():
                        step(stage)
                yield
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @contextlib.asynccontextmanager
    async def _cast(self) -> AsyncIterator[dict[str, Cast]]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.webhook)
            yield {style: await cast(stack) for style, cast in CASTS.items()}

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def do(self, *acts: Callable[[], None]) -> None:
        """Let things happen where the simulators live."""

        async def act() -> None:
            for one in acts:
                one()

        self._await(act())

    def _receive(self, request: Request) -> Answer:
        style, receiver = request.path.strip("/").split("/")
        for alert in json.loads(request.body)["alerts"]:
            description = alert["annotations"].get("description", "")
            self.stages[style].notes.append(Note(receiver, alert["status"], alert["labels"], description))
        return Answer(200)


# --- the steps ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """What one step saw of one style."""

    notes: list[Note]
    held: list[tuple[dict[str, str], bool]]
    expected: list[Expected] = field(default_factory=list)
    hidden: list[Labels] = field(default_factory=list)


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    program("prometheus")
    alertmanager_program()
    theatre = Theatre()
    with theatre.open(tmp_path_factory.mktemp("live")):
        yield theatre


@pytest.fixture(autouse=True)
def _tails(request: pytest.FixtureRequest, theatre: Theatre) -> Iterator[None]:
    """Show the end of every log if the test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        for stage in theatre.stages.values():
            for one in stage.programs.values():
                sys.stderr.write(f"{one.tail()}\n")


@pytest.fixture(scope="module")
def well(theatre: Theatre) -> dict[str, dict[str, set[str]]]:
    """Wait until every target has been probed and is well; return through whom."""
    end = time.monotonic() + PATIENCE
    for stage in theatre.stages.values():

        def all_well(stage: Stage = stage) -> bool:
            found = {one["metric"]["target"]: one["value"][1] for one in ask(stage.prometheus, "probe_success")}
            return found == dict.fromkeys(stage.names, "1")

        assert stage.wait(all_well, end), "\n".join(one.tail() for one in stage.programs.values())
    return {style: stage.probed_through() for style, stage in theatre.stages.items()}


@pytest.fixture(scope="module")
def broken(theatre: Theatre, well: object) -> dict[str, Seen]:
    """Break everything at once, and wait until all of it is told or hidden."""
    theatre.do(*(fault.begin for stage in theatre.stages.values() for fault in stage.cast.faults))
    end = time.monotonic() + PATIENCE
    seen = {}
    for style, stage in theatre.stages.items():
        expected = [one for fault in stage.cast.faults for one in fault.told]
        hidden = [one for fault in stage.cast.faults for one in fault.hidden]
        stage.wait(lambda: stage.has_told(expected) and stage.hides(hidden), end)  # noqa: B023 - called at once
        held = stage.evaluator_agrees(end)
        seen[style] = Seen(stage.told(), held, expected, hidden)
    return seen


@pytest.fixture(scope="module")
def mended(theatre: Theatre, broken: dict[str, Seen]) -> dict[str, Seen]:
    """Mend everything, and wait until nothing fires."""
    theatre.do(*(fault.end for stage in theatre.stages.values() for fault in stage.cast.faults))
    end = time.monotonic() + PATIENCE
    seen = {}
    for style, stage in theatre.stages.items():
        expected = broken[style].expected
        stage.wait(lambda: stage.is_quiet() and stage.has_told(expected, "resolved"), end)  # noqa: B023 - called at once
        seen[style] = Seen(list(stage.notes), stage.alerts(), expected)
    return seen


@dataclass(slots=True)
class Halved(Seen):
    """What one step saw while a replica was dead."""

    share: list[str] = field(default_factory=list)
    address: str = ""
    began: int = 0


@pytest.fixture(scope="module")
def halved(theatre: Theatre, well: dict[str, dict[str, set[str]]], mended: object) -> dict[str, Halved]:
    """Kill one replica of two, and let a target of the other's share die."""
    seen = {}
    for style in REPLICATED:
        stage = theatre.stages[style]
        address = stage.exporters["a"]
        share = sorted(name for name, exporters in well[style].items() if address in exporters)
        other = next(name for name in stage.names if name not in share)
        expected = [
            Expected("HealthExporterDown", "critical", {"instance": address, "exporter": address}),
            Expected("HealthTargetDown", "critical", {"target": other}),
        ]
        hidden: list[Labels] = [{"alertname": "HealthTargetNotProbed", "target": name} for name in share]
        seen[style] = Halved([], [], expected, hidden, share, address, len(stage.notes))
        stage.programs["a"].kill()
        theatre.do(stage.cast.servers[other].cut)
    end = time.monotonic() + PATIENCE
    for style, one in seen.items():
        stage = theatre.stages[style]
        stage.wait(lambda: stage.has_told(one.expected, since=one.began) and stage.hides(one.hidden), end)  # noqa: B023 - called at once
        one.held = stage.evaluator_agrees(end)
        one.notes = stage.notes[one.began :]
    return seen


@pytest.fixture(scope="module")
def whole(theatre: Theatre, halved: dict[str, Halved]) -> dict[str, Seen]:
    """Start the replica again, and the target."""
    for style in REPLICATED:
        stage = theatre.stages[style]
        stage.start_exporter("a", stage.exporters["a"])
        theatre.do(*(server.reopen for server in stage.cast.servers.values()))
    end = time.monotonic() + PATIENCE
    seen = {}
    for style, before in halved.items():
        stage = theatre.stages[style]
        stage.wait(
            lambda: stage.is_quiet() and stage.has_told(before.expected, "resolved", before.began),  # noqa: B023 - called at once
            end,
        )
        seen[style] = Seen(stage.notes[before.began :], stage.alerts(), before.expected)
    return seen


# --- what is held ---------------------------------------------------------------------------------------------------


def unexpected(notes: Iterable[Note], expected: Sequence[Expected]) -> str:
    """Return the alerts that should not have been told of, a line each."""
    return "\n".join(
        str(note)
        for note in notes
        if note.status == "firing"
        and note.labels["alertname"] not in ALLOWED
        and not any(one.is_about(note.labels) for one in expected)
    )


def missing(notes: Sequence[Note], expected: Iterable[Expected]) -> list[Expected]:
    return [one for one in expected if not any(one.is_about(note.labels) for note in notes)]


@pytest.mark.parametrize("style", STYLES)
def test_each_target_is_probed_through_one_exporter(
    theatre: Theatre, well: dict[str, dict[str, set[str]]], style: str
) -> None:
    stage = theatre.stages[style]
    assert [len(exporters) for exporters in well[style].values()] == [1] * len(stage.names)
    if style in REPLICATED:
        assert set().union(*well[style].values()) == set(stage.exporters.values())


@pytest.mark.parametrize("style", REPLICATED)
def test_the_servers_are_asked_by_the_exporter_of_their_shard_alone(
    theatre: Theatre, broken: dict[str, Seen], well: dict[str, dict[str, set[str]]], style: str
) -> None:
    stage = theatre.stages[style]
    for name, server in stage.cast.servers.items():
        asking = {request.headers["x-replica"] for request in list(server.requests)}
        assert {stage.exporters[replica] for replica in asking} == well[style][name], name


@pytest.mark.parametrize("style", STYLES)
def test_a_fault_is_told_to_whom_it_concerns_and_nothing_else_is(broken: dict[str, Seen], style: str) -> None:
    seen = broken[style]
    assert missing(seen.notes, seen.expected) == []
    assert unexpected(seen.notes, seen.expected) == ""
    for note in seen.notes:
        assert note.receiver == RECEIVER[note.labels["severity"]]


@pytest.mark.parametrize("style", STYLES)
def test_the_description_says_what_fails_and_why(broken: dict[str, Seen], style: str) -> None:
    for one in broken[style].expected:
        notes = [note for note in broken[style].notes if one.is_about(note.labels)]
        for word in (one.labels["target"], *one.words):
            assert all(word in note.description for note in notes), (word, notes)


@pytest.mark.parametrize("style", STYLES)
def test_what_follows_from_a_fault_fires_and_is_inhibited(broken: dict[str, Seen], style: str) -> None:
    for one in broken[style].hidden:
        found = [by_another for labels, by_another in broken[style].held if one.items() <= labels.items()]
        assert found, one
        assert all(found), one


@pytest.mark.parametrize("style", STYLES)
def test_the_evaluator_of_inhibition_agrees_with_alertmanager(broken: dict[str, Seen], style: str) -> None:
    held = broken[style].held
    assert held
    assert verdicts(held) == held


@pytest.mark.parametrize("style", STYLES)
def test_what_is_mended_is_resolved(mended: dict[str, Seen], style: str) -> None:
    seen = mended[style]
    resolved = [note for note in seen.notes if note.status == "resolved"]
    assert missing(resolved, seen.expected) == []
    assert [labels for labels, _ in seen.held if labels["alertname"] not in ALLOWED] == []


@pytest.mark.parametrize("style", STYLES)
def test_nothing_is_told_late(mended: dict[str, Seen], style: str) -> None:
    """A consequence that outlives its cause would be told when all is well again."""
    assert unexpected(mended[style].notes, mended[style].expected) == ""


@pytest.mark.parametrize("style", REPLICATED)
def test_a_dead_exporter_is_told_with_what_it_leaves_unwatched(halved: dict[str, Halved], style: str) -> None:
    seen = halved[style]
    assert missing(seen.notes, seen.expected) == []
    down = [note for note in seen.notes if note.labels["alertname"] == "HealthExporterDown"]
    # One alert, though in the style `metrics` a replica stands in two jobs.
    assert len({tuple(sorted(note.labels.items())) for note in down}) == 1
    for note in down:
        assert seen.address in note.description
        if style == "http-sd":
            assert f"{len(seen.share)} probed targets" in note.description


@pytest.mark.parametrize("style", REPLICATED)
def test_the_share_of_a_dead_exporter_is_inhibited_and_the_other_is_free(halved: dict[str, Halved], style: str) -> None:
    seen = halved[style]
    assert seen.share
    not_probed = {
        labels["target"]: by_another
        for labels, by_another in seen.held
        if labels["alertname"] == "HealthTargetNotProbed"
    }
    assert not_probed == dict.fromkeys(seen.share, True)
    (other,) = (one for one in seen.expected if one.name == "HealthTargetDown")
    assert [by_another for labels, by_another in seen.held if other.is_about(labels)] == [False]
    assert unexpected(seen.notes, seen.expected) == ""
    assert verdicts(seen.held) == seen.held


@pytest.mark.parametrize("style", REPLICATED)
def test_an_exporter_that_is_back_is_resolved(whole: dict[str, Seen], style: str) -> None:
    seen = whole[style]
    resolved = [note for note in seen.notes if note.status == "resolved"]
    assert missing(resolved, seen.expected) == []


@pytest.mark.parametrize("style", REPLICATED)
def test_nothing_is_told_late_when_an_exporter_is_back(whole: dict[str, Seen], style: str) -> None:
    assert unexpected(whole[style].notes, whole[style].expected) == ""
