"""From fault to page: simulated targets are put into a fault, what the exporter then says is given to promtool with the
rules that ship, and what fires, from when on, and who is told is read off. tests/test_matrix.py has the faults.

Time is virtual: before the fault a target is healthy for an hour, of which only the last minutes are really probed.
"""

import asyncio
import contextlib
import re
import socket
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from collectors import COLLECTORS
from collectors.http import HttpClient
from collectors.settings import TargetSettings
from health_exporter.exporter_metrics import REJECTED, RELOAD_SUCCESSFUL, ExporterMetrics
from health_exporter.exposition import PLAIN, encode_registry, encode_target, join
from health_exporter.prober import Budget, Prober
from health_exporter.simulators.bundles import Behaviour, Bundle, BundleHost, Mode
from health_exporter.simulators.dns import DnsServer
from health_exporter.simulators.healthchecks import Healthchecks, Job, SimulatedCheck
from health_exporter.simulators.pryv import PryvCore, PryvDeployment
from health_exporter.simulators.system_health import SystemHealth
from health_exporter.simulators.wire import Handler, Reply, Request, Server
from tests.alerts.rules import DIRECTORY, RULE_FILES, dump
from tests.inhibition import InhibitRule, Labels, notifying
from tests.support import FakeClock, contexts_of
from tests.tls_support import Certificates, Names

Kind = Literal["pryv", "multi", "bundles", "public", "documented", "system", "cron", "many"]
Script = Mapping[float, Callable[["Stage"], object]]
"""What happens, by seconds since the fault."""

HISTORY = 3300
"""Seconds of health before the fault, so that the ratios of the last hour exist."""
PROBED = 120
"""Seconds of it that are really probed; the rest repeats them."""
STEADY = 390
"""Seconds after the last thing that happened, from which on the last samples repeat: answers are remembered for 300."""
PATIENCE = 1.25
"""The budget of a probe in which something never answers, in real seconds."""
AFTER = 480
"""Seconds of health after a row: longer than alerts are kept."""
RECENT = 300
"""Older history has only the series of LOOKED_BACK_AT: no rule sees the others any more, and promtool is quicker."""
LOOKED_BACK_AT = {
    "up",
    "probe_success",
    "bundle_restarts_total",
    "system_health_start_time_seconds",
    "bundle_host_start_time_seconds",
    "process_start_time_seconds",
}
NAME = "localhost"
GROUP_WAIT = 45
MANY = 40
"""Rows for one promtool at the most, so that all processors have something to do."""
LONG = 1000
"""Rows that last longer are run beside the others."""


# --- targets --------------------------------------------------------------------------------------------------------


def project(now: float) -> list[SimulatedCheck]:
    """Return a project of six jobs that ping every five minutes."""
    return [
        SimulatedCheck(f"Job {n}", f"job-{n}", "prod", timeout=300, grace=60, job=Job(300, at=now - 900 + 40 * n))
        for n in range(6)
    ]


class Stage:
    """Simulated servers of one kind, the exporter that probes them, and a clock for all of them."""

    def __init__(self, kind: Kind, certificates: Certificates, *, probe_style: bool = False) -> None:
        self.kind = kind
        self.certificates = certificates
        self.clock = FakeClock(float(round(time.time())))
        self.began = self.clock.now
        self.probe_style = probe_style
        self.metrics = ExporterMetrics()
        self.metrics.gauge(RELOAD_SUCCESSFUL).set(1)
        self.seconds = 10.0
        self.skew = 0.0
        self.scraped = True
        self.job = True
        self.targets_scraped: dict[str, bool | None] = {"t": True} if probe_style else {}
        """Under /probe: whether the scrape of a target succeeds; None if nothing scrapes it."""
        self.exporter_started = 0
        self.exporter_label = ',exporter="e1:10054"'
        self.names = Names({NAME: ["127.0.0.1"]})
        self.core = PryvCore()
        self.deployment = PryvDeployment()
        self.dns = DnsServer(self.deployment.domain)
        bundles = (Bundle("bash"), Bundle("bash"), Bundle("weather"), Bundle("search"))
        clock = self.read
        mode: Mode = "public" if kind == "public" else "documented" if kind == "documented" else "recon"
        self.host = BundleHost(bundles, mode, clock)
        self.system = SystemHealth()
        self.restart_system(3600)
        self.cron = Healthchecks(project(self.clock.now), clock=clock)
        self.keys: dict[str, Any] = {}
        self.prober: Prober
        self._fillers: list[socket.socket] = []

    def read(self) -> float:
        """Return the time."""
        return self.clock.now

    async def enter(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the servers and the exporter."""
        stack.callback(self._let_go)
        if self.kind == "multi":
            await stack.enter_async_context(self.deployment)
            await stack.enter_async_context(self.dns)
            self.dns.records.update(self.deployment.records())
        else:
            await stack.enter_async_context(self.simulator)
        stack.push_async_callback(self._close)
        self.retarget()

    def _let_go(self) -> None:
        for filler in self._fillers:
            filler.close()

    async def _close(self) -> None:
        await self.prober.close()

    @property
    def simulator(self) -> PryvCore | BundleHost | SystemHealth | Healthchecks:
        """The server of the target."""
        match self.kind:
            case "pryv":
                return self.core
            case "multi":
                return self.deployment.cores["core-a"]
            case "system":
                return self.system
            case "cron":
                return self.cron
        return self.host

    @property
    def server(self) -> Server:
        """What listens for the target."""
        return self.simulator.server

    @property
    def faults(self) -> Any:
        """What can be wrong with it."""
        return self.simulator.faults

    @property
    def core_asked(self) -> PryvCore:
        """The Pryv core of the target."""
        core = self.simulator
        assert isinstance(core, PryvCore)
        return core

    def retarget(self, **keys: Any) -> None:
        """Load the config again, with these keys of the target changed."""
        self.keys |= keys
        targets = tuple(self._targets())
        client = HttpClient("tests", self.clock.clock)
        client.lookups = self.names
        self.prober = Prober(targets, contexts_of(*targets), client, self.metrics)

    def _targets(self) -> Iterator[TargetSettings]:
        url = self.simulator.url
        collectors: dict[Kind, tuple[str, dict[str, Any]]] = {
            "pryv": ("pryv", {"username": self.core.username, "token": self.core.token}),
            "multi": ("pryv", {}),
            "bundles": ("bundles", {"expect": ["weather"]}),
            "public": ("bundles", {"expect": ["weather"]}),
            "documented": ("bundles", {"expect": ["weather"]}),
            "many": ("bundles", {}),
            "system": ("system_health", {"api_key": self.system.api_key}),
            "cron": ("healthchecks", {"api_key": self.cron.read_only_key}),
        }
        collector, own = collectors[self.kind]
        if self.kind == "multi":
            core = self.core_asked
            dns = {"nameservers": [f"127.0.0.1:{self.dns.port}"], "timeout": "1s"}
            own = {"username": core.username, "token": core.token, "domain": "pryv.test", "dns": dns}
        for name in [f"t{n}" for n in range(6)] if self.kind == "many" else ["t"]:
            written = {"name": name, "collector": collector, "url": url, **own, **self.keys}
            for key in ("url", "register_url"):
                if key in written:
                    written[key] = written[key].replace("{url}", url).replace("{port}", str(self.server.port))
            yield COLLECTORS[collector].settings_model.model_validate(written, context={"directory": Path()})

    # What can be done to a target of any kind.

    def answer(self, reply: Reply, path: str = "") -> None:
        """Let something before the server answer all requests, or those whose path has this text."""
        behind: Handler = self.server.handler

        def handle(request: Request) -> Any:
            return reply if path in request.path else behind(request)

        self.server.handler = handle

    def mend(self) -> None:
        """Take away what `answer` put there."""
        self.server.handler = self.simulator._handle

    def swallow(self) -> None:
        """Let the host drop packets: its queue of connections is full, and nobody takes one."""
        self.server.cut()
        listener = self.server._socket
        assert listener is not None
        listener.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.server.port))
            self._fillers.append(filler)

    def behave(self, name: str, behaviour: Behaviour, number: int = 9) -> None:
        """Let the processes of a bundle die now, and its next ones behave so."""
        for instance in self.host._named(name)[:number]:
            instance.bundle = replace(instance.bundle, behaviour=behaviour)
            instance.alive = False
            if behaviour == "stopped":
                instance.state = "stopped"

    def boot(self, *bundles: Bundle) -> None:
        """Boot the bundle host again, with these bundles."""
        self.host._bundles = bundles[::-1]
        self.host.restart()

    def jobs(self, *, stop: int, together: bool = False) -> None:
        """Stop that many of the jobs that ping; `together`: after a last ping of all of them now."""
        for check in self.cron.checks[:stop]:
            assert check.job is not None
            check.job.stopped = True
            if together:
                check.ping(self.clock.now)

    def restart_system(self, uptime: float = 0.0) -> None:
        """Restart the system health server, whose uptime is by the stage's clock."""
        began = self.clock.now - uptime
        self.system._uptime_ms = lambda: int((self.clock.now - began) * 1000)  # type: ignore[method-assign]

    def restart_exporter(self) -> None:
        """Begin with empty memory and counters."""
        self.exporter_started += 1
        self.metrics = ExporterMetrics()
        self.metrics.gauge(RELOAD_SUCCESSFUL).set(1)
        self.retarget()

    def remove_target(self) -> None:
        """Load a config without the target, whose counters go with it."""
        self.metrics = ExporterMetrics()
        self.metrics.gauge(RELOAD_SUCCESSFUL).set(1)
        self.prober = Prober((), {}, HttpClient("tests", self.clock.clock), self.metrics)

    def reject(self) -> None:
        """Let the exporter turn a request away."""
        self.metrics.counter(REJECTED, "max_requests").inc()

    def fail_reload(self) -> None:
        """Let the exporter read a broken config."""
        self.metrics.gauge(RELOAD_SUCCESSFUL).set(0)

    # Time, and what is scraped.

    async def scrape(self) -> dict[str, float]:
        """Return what Prometheus has after a scrape: series to value. Times count from the beginning."""
        found: dict[str, float] = {}
        for core in (self.core, *self.deployment.cores.values()):
            offset = self.clock.now - time.time() + self.skew
            object.__setattr__(core.faults, "clock_offset", offset)  # it is no change of the kind that opens a port
        exporter = 'job="health-exporter",instance="e1:10054"'
        if self.job:
            found[f"up{{{exporter}}}"] = float(self.scraped)
        names = tuple(self.prober.targets)
        budget = Budget.starting_now(self.seconds)
        outcomes = await asyncio.gather(*(self.prober.probe(name, budget) for name in names)) if self.scraped else ()
        if self.scraped and self.job:
            found |= self._samples(encode_registry(self.metrics.registry, PLAIN).decode(), exporter)
        for name, outcome in zip(names, outcomes, strict=False):
            labels = exporter
            if self.probe_style:
                labels = f'job="health-probe",instance="{name}"{self.exporter_label}'
            if not self.probe_style or self.targets_scraped[name]:
                text = join([encode_target(outcome, self.seconds, static_labels=True)], PLAIN).decode()
                found |= self._samples(text, labels)
        for name, asked in self.targets_scraped.items():
            if asked is not None:
                up = f'up{{job="health-probe",instance="{name}"{self.exporter_label}}}'
                found[up] = float(self.scraped and asked)
        return found

    def _samples(self, text: str, labels: str) -> dict[str, float]:
        found = {}
        for line in text.splitlines():
            match = SAMPLE.fullmatch(line)
            if match and match["name"] in READ_BY_RULES:
                value = self._normal(match["name"], float(match["value"]))
                found[f"{match['name']}{{{labels}{',' if match['labels'] else ''}{match['labels'] or ''}}}"] = value
        return found

    def _normal(self, name: str, value: float) -> float:
        """Return a value as it would be if time began with the stage, and if all took the same time."""
        if name == "process_start_time_seconds":
            return float(self.exporter_started)
        if re.search(r"_(timestamp|start_time)_seconds$|_cert_expiry$", name):
            return round(value - self.began)
        if name == "pryv_clock_skew_seconds":
            return round(value, 1) + 0.0
        if name == "probe_duration_seconds":
            return round(value / self.seconds, 1) * self.seconds
        return 0.1 if name.endswith("_duration_seconds") else value


SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:]\w*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_TEXT = "".join(path.read_text(encoding="utf-8") for path in RULE_FILES)
READ_BY_RULES = frozenset(re.findall(r"\b[a-z_]+\b", _TEXT))


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A fault, or a state that is noisy and healthy, and what comes of it.

    `script` is what happens; `until` when the row ends. `must`: whom it pages or makes a ticket for, after inhibition,
    and after how many seconds it fires. `shows`: what is seen beside failing checks. `why`: what a reader must know.
    `grid` is the time between two scrapes, and two evaluations.
    """

    id: str
    kind: Kind
    broken: str
    script: Script
    must: Mapping[str, int] = field(default_factory=dict)
    shows: str = ""
    why: str = ""
    until: int = 720
    hangs: bool = False
    seconds: float = 0.0
    keys: Mapping[str, Any] = field(default_factory=dict)
    history: int = HISTORY
    grid: int = 30
    steady: int | None = None
    cycle: int = 1
    probe_style: bool = False
    exporter_label: bool = True
    after: int = AFTER
    alone: bool = False

    @property
    def end(self) -> int:
        """When all is over, in seconds after the fault."""
        return self.until + self.after

    @property
    def name(self) -> str:
        """The fault and the kind of target."""
        return f"{self.id} {self.kind}"


@dataclass(frozen=True)
class Recorded:
    """What was scraped in a row: all samples of each scrape, from the beginning of history on."""

    row: Row
    scrapes: Sequence[Mapping[str, float]]
    sees: str

    def series(self, prefix: str) -> Iterator[dict[str, str]]:
        """Yield its series as promtool reads them, told apart from those of other rows by a prefix."""
        for name in sorted(set().union(*self.scrapes)):
            own = OWN_LABELS.sub(rf'\1="{prefix}', name)
            yield {"series": own, "values": " ".join(self._values(name))}

    def _values(self, name: str) -> Iterator[str]:
        """Yield the values of a series, runs of equal steps in one."""
        values = [scrape.get(name) for scrape in self.scrapes]
        begin = 0
        before: float | None = None
        while begin < len(values):
            first, end = values[begin], begin + 1
            while end < len(values) and values[end] == first:
                end += 1
            if first is None:
                # Prometheus marks a series stale at the first scrape without it.
                yield f"stale _x{end - begin - 1}" if before is not None and end - begin > 1 else "stale"
                if before is None and end - begin > 1:
                    yield f"_x{end - begin - 1}"
            else:
                yield f"{first!r}x{end - begin - 1}" if end - begin > 1 else repr(first)
            before, begin = first, end


OWN_LABELS = re.compile(r'\b(job|target|instance|exporter)="')
"""Labels whose values no two rows share, so that promtool can run them all at once."""


async def record(row: Row, certificates: Certificates) -> Recorded:
    """Play a row."""
    async with contextlib.AsyncExitStack() as stack:
        stage = Stage(row.kind, certificates, probe_style=row.probe_style)
        stage.keys |= row.keys
        if not row.exporter_label:
            stage.exporter_label = ""
        await stage.enter(stack)
        stage.began += PROBED - row.history
        stage.exporter_started = 0
        history: list[Mapping[str, float]] = []
        for _ in range(0, PROBED, row.grid):
            history.append(await stage.scrape())
            stage.clock.advance(row.grid)
        stage.seconds = row.seconds or (PATIENCE if row.hangs else 10.0)
        steps: list[Mapping[str, float]] = []
        script = dict(row.script)
        steady = row.until if row.steady is None else row.steady
        if row.steady is None and row.grid <= 30:
            steady = int(max(script)) + STEADY
        for moment in range(0, min(row.until, steady) + 1, row.grid):
            for when in sorted(when for when in script if when <= moment):
                result = script.pop(when)(stage)
                if asyncio.iscoroutine(result):
                    await result
            steps.append(await stage.scrape())
            stage.clock.advance(row.grid)
    while len(steps) * row.grid <= row.until:
        steps.append(steps[-row.cycle])
    seen = _seen(steps)
    well = [_held(scrape, steps[-1]) for scrape in history]
    steps += [well[n % len(well)] for n in range(row.after // row.grid)]
    length = row.history // row.grid
    before = [_held(history[n % len(history)], history[0]) for n in range(length - len(history))]
    recent = length - len(history) - RECENT // row.grid
    before[: max(recent, 0)] = [_long_ago(scrape) for scrape in before[: max(recent, 0)]]
    before += history if length else []
    return Recorded(row, [*before, *steps], seen)


def _held(scrape: Mapping[str, float], first: Mapping[str, float]) -> Mapping[str, float]:
    """Return a scrape whose counters and start times stand where they stood in another."""
    kept = ("_total{", "_start_time_seconds{")
    return {name: first.get(name, value) if any(k in name for k in kept) else value for name, value in scrape.items()}


def _long_ago(scrape: Mapping[str, float]) -> Mapping[str, float]:
    """Return what of a scrape rules look back at."""
    return {name: value for name, value in scrape.items() if name.partition("{")[0] in LOOKED_BACK_AT}


REASON = re.compile(r'probe_check_failure_reason\{.*check="(\w+)",.*reason="(\w+)".*')


def _seen(steps: Iterable[Mapping[str, float]]) -> str:
    """Return the checks that fail, with their reasons."""
    found: dict[str, list[str]] = defaultdict(list)
    for step in steps:
        for name in step:
            match = REASON.fullmatch(name)
            if match and match[2] not in found[match[1]]:
                found[match[1]].append(match[2])
    return " ".join(f"{check}={'|'.join(sorted(reasons))}" for check, reasons in sorted(found.items()))


async def record_all(rows: Sequence[Row], certificates: Certificates) -> list[Recorded]:
    """Play all rows: those in which something hangs beside each other, the others one after the other."""
    done: dict[str, Recorded] = {}

    async def play(*some: Row) -> None:
        for row in some:
            done[row.name] = await record(row, certificates)

    slow = [row for row in rows if row.hangs]
    quick = [row for row in rows if not row.hangs]
    async with asyncio.TaskGroup() as group:
        group.create_task(play(*quick))
        for row in slow:
            group.create_task(play(row))
    return [done[row.name] for row in rows]


# --- what comes of it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alert:
    """An alert that fired: when it began and ended, in seconds after the fault."""

    labels: Labels
    begin: int
    end: int

    @cached_property
    def text(self) -> str:
        """`HealthSystemComponentDown[redis] critical`: the name, what tells it from others of that name, severity."""
        common = {"__name__", "alertname", "alertstate", "severity", "job", "instance", "collector", "burn", "expired"}
        rest = {name: value for name, value in sorted(self.labels.items()) if name not in common}
        if rest.get("target") == "t":
            del rest["target"]
        if rest.get("exporter") == "e1:10054":
            del rest["exporter"]
        more = f"[{','.join(rest.values())}]" if rest else ""
        return f"{self.labels['alertname']}{more} {self.labels['severity']}"


FAILED = re.compile(r'expr: "ALERTS\{.*\}", time: (?P<time>\S+),\s+exp:.*\n\s+got: ?(?P<got>.*)')
LABEL_SET = re.compile(r'ALERTS", ((?:[^"}]|"(?:[^"\\]|\\.)*")*)\}')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def firing(recorded: Sequence[Recorded], directory: Path, files: Mapping[str, str]) -> dict[str, list[Alert]]:
    """Return what fires in each row, and from when to when, as promtool finds with these rule files.

    promtool is asked for something that is nowhere, at every evaluation, and says what there is instead.
    """
    directory.mkdir(parents=True, exist_ok=True)
    order = []
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
        order += re.findall(r"^ *-? *name: (health-\S+)$", text, re.MULTILINE)
    parts = list(_parts(recorded))
    processes = []
    for number, part in enumerate(parts):
        row = part[0].row
        times = range(max(row.history - row.grid, 0), row.history + max(one.row.end for one in part) + 1, row.grid)
        test = {
            "interval": f"{row.grid}s",
            "input_series": [series for n, one in enumerate(part) for series in one.series(f"{n}-")],
            "promql_expr_test": [
                {
                    "expr": 'ALERTS{alertstate="firing"}',
                    "eval_time": f"{when}s",
                    "exp_samples": [{"labels": '{no="such"}', "value": 1}],
                }
                for when in times
            ],
        }
        document = {
            "rule_files": list(files),
            "evaluation_interval": f"{row.grid}s",
            "group_eval_order": order,
            "tests": [test],
        }
        path = directory / f"tests-{number}.yml"
        path.write_text(dump(document), encoding="utf-8")
        with path.with_suffix(".out").open("wb") as output:
            processes.append(subprocess.Popen(["promtool", "test", "rules", str(path)], stdout=output, stderr=output))
    found: dict[str, list[Alert]] = {}
    for number, (process, part) in enumerate(zip(processes, parts, strict=True)):
        process.wait(timeout=300)
        found |= _read((directory / f"tests-{number}.out").read_text(encoding="utf-8"), part)
    return found


def _parts(recorded: Sequence[Recorded]) -> Iterator[Sequence[Recorded]]:
    """Divide the rows by what promtool can run together; without any scrape is what only one can be."""
    together: dict[tuple[object, ...], list[Recorded]] = defaultdict(list)
    for one in recorded:
        row = one.row
        alone = row.name if row.alone else ""
        together[alone, row.grid, row.history, row.until > LONG].append(one)
    for some in together.values():
        parts = 1 + len(some) // MANY
        yield from (some[number::parts] for number in range(parts))


def _read(output: str, part: Sequence[Recorded]) -> dict[str, list[Alert]]:
    rows: list[dict[int, list[Labels]]] = [{} for _ in part]
    for match in FAILED.finditer(output):
        when = _seconds(match["time"])
        for sets in rows:
            sets[when] = []
        for text in LABEL_SET.findall(match["got"]):
            labels = dict(LABEL.findall(text))
            owners = (str(labels[name]) for name in ("job", "target", "instance", "exporter") if name in labels)
            number = next(owners, "0-").partition("-")[0]
            own = {name: value.removeprefix(f"{number}-") for name, value in labels.items()}
            rows[int(number)][when].append(own)
    found = {}
    for one, sets in zip(part, rows, strict=True):
        row = one.row
        times = [*range(max(row.history - row.grid, 0), row.history + row.end + 1, row.grid)]
        assert set(times) <= set(sets), f"promtool did not answer for {row.name}: {output[:2000]}"
        found[row.name] = _alerts(row, {when: sets[when] for when in times})
    return found


def _alerts(row: Row, seen: Mapping[int, Sequence[Labels]]) -> list[Alert]:
    open_: dict[tuple[tuple[str, str], ...], int] = {}
    found = []
    for when in sorted(seen):
        now = {tuple(sorted(labels.items())) for labels in seen[when]}
        ended = open_.keys() - now
        found += [Alert(dict(key), open_.pop(key), when - row.history) for key in ended]
        for key in now - open_.keys():
            open_[key] = when - row.history
    found += [Alert(dict(key), begin, row.end + row.grid) for key, begin in open_.items()]
    return sorted(found, key=lambda alert: (alert.begin, alert.text))


def _seconds(duration: str) -> int:
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhms])", duration))


CONFIG: dict[str, Any] = yaml.safe_load((DIRECTORY / "alertmanager.example.yml").read_text(encoding="utf-8"))
INHIBITION = tuple(InhibitRule.parse(written) for written in CONFIG["inhibit_rules"])


def told(row: Row, alerts: Sequence[Alert], rules: Sequence[InhibitRule] = INHIBITION) -> list[str]:
    """Return the notifications that leave Alertmanager: what fires, is not hidden, and has waited for its group."""
    sent: dict[tuple[str, ...], str] = {}
    for when in range(-row.grid, row.end + 1, row.grid):
        now = [alert for alert in alerts if alert.begin <= when < alert.end]
        free = notifying(rules, [alert.labels for alert in now])
        for alert in now:
            if alert.labels in free and when + row.grid > alert.begin + GROUP_WAIT:
                labels = alert.labels
                if labels["severity"] != "info":
                    group = (labels["alertname"], labels["severity"], labels.get("job", ""), labels.get("target", ""))
                    sent.setdefault(group, alert.text)
    many = Counter(group[:2] for group in sent)
    return sorted({f"{name} {severity}" + (f" x{n}" if n > 1 else "") for (name, severity), n in many.items()})


def rule_files() -> dict[str, str]:
    """Return the rule files that ship."""
    return {path.name: path.read_text(encoding="utf-8") for path in RULE_FILES}


# --- the document ---------------------------------------------------------------------------------------------------


def document(sections: Mapping[str, Sequence[tuple[Recorded, Sequence[Alert]]]], not_seen: Mapping[str, str]) -> str:
    """Return docs/alerting-matrix.md."""
    text = HEAD
    for title, rows in sections.items():
        text += (
            f"\n## {title}\n\n| row | target | what is wrong | what the exporter sees | who is told | what fires |\n"
        )
        text += "| --- | --- | --- | --- | --- | --- |\n"
        text += "".join(f"{_line(recorded, alerts)}\n" for recorded, alerts in rows)
    text += "\n## What is not here\n\n| row | why |\n| --- | --- |\n"
    return text + "".join(f"| {name} | {why} |\n" for name, why in not_seen.items())


HEAD = """# From fault to page

Every row was played: simulated targets were put into the fault, the exporter probed them every 30 s, and promtool ran
the rules of `alerts/` on what it said. `tests/matrix.py` does that, `tests/test_matrix.py` holds this table to it and
writes it: `pytest tests/test_matrix.py --update-golden`.

- *What the exporter sees*: failing checks with their reasons (several if they change), then metrics that show it.
- *Who is told*: what is left after the inhibition of `alerts/alertmanager.example.yml`. C is a page, W a ticket.
- *What fires*: every alert, the hidden ones too, and how long after the first failing scrape. Add one scrape interval,
  one evaluation and `group_wait`.
- Before the fault the target was healthy for an hour, and is again after it: who is told when it is over counts too.
  A time after "to" is the end of an alert that ends while the row lasts.
- A target is `pryv` (single core), `multi` (one core of several), `bundles` (host with `/v1/bundles/health`), `public`
  (host without it), `documented` (host that gives its own uptime), `system`, `cron` (Healthchecks), `many` (six hosts).
"""


def _line(recorded: Recorded, alerts: Sequence[Alert]) -> str:
    row = recorded.row
    told_ = ", ".join(_short(text) for text in told(row, alerts)) or "nobody"
    why = f" ({row.why})" if row.why else ""
    words = f"{row.broken}{why}"
    sees = _sees(recorded) or "nothing"
    return f"| {row.id} | {row.kind} | {words} | {sees} | {told_} | {_fires(row, alerts) or 'nothing'} |"


def _fires(row: Row, alerts: Sequence[Alert]) -> str:
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for alert in alerts:
        until = f" to {_minutes(alert.end)}" if alert.end <= row.until else ""
        names[f"{alert.labels['alertname']} {alert.labels['severity']}"][f"{_minutes(alert.begin)}{until}"] += 1
    return "; ".join(
        f"{_short(name)} " + ", ".join(f"{when} ({n} times)" if n > 1 else when for when, n in times.items())
        for name, times in names.items()
    )


def _sees(recorded: Recorded) -> str:
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in recorded.sees.split():
        check, _, reason = one.partition("=")
        reasons[reason.replace("|", ", then ")].append(check)
    seen = [f"{reason}: {', '.join(f'`{check}`' for check in checks)}" for reason, checks in reasons.items()]
    return "; ".join([*seen, *(f"`{one}`" for one in recorded.row.shows.split(", ") if one)])


def _short(text: str) -> str:
    name, severity, *more = text.split()
    count = f" {' '.join(more)}" if more else ""
    return f"`{name}` {severity[0].upper()}{count}"


def _minutes(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "m"), (left, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "at once"
