"""Fixtures: a collector that does what a test tells it, a server for it to ask, and the exporter served on loopback."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import aiohttp
import pytest
from pydantic import Field

from collectors import COLLECTORS
from collectors.base import Check, CheckReport, Clock, Collector, Conclusion, gauge
from collectors.failures import Failure, Reason
from collectors.http import HttpClient
from collectors.settings import TargetSettings
from health_exporter.exporter_metrics import IN_FLIGHT, ExporterMetrics
from health_exporter.prober import Prober
from health_exporter.simulators.wire import Answer, Hang, Reply, Request, Server
from health_exporter.web import Exporter, WebOptions, serving
from tests.support import Samples, contexts_of, read


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/ anew instead of comparing")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With NO_SKIPS set, a skipped test that needs a program is a failed one: CI has every program."""
    report = yield
    if report.skipped and os.environ.get("NO_SKIPS") and item.get_closest_marker("e2e"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but NO_SKIPS is set: {report.longrepr}"
    return report


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


class AskingSettings(TargetSettings):
    """A target whose checks are named by what the upstream does; with an interval, answers are remembered."""

    collector: Literal["asking"]
    checks: Annotated[tuple[str, ...], Field(strict=False)]
    interval: float = 0.0
    retry: float = 0.0

    def check_names(self) -> tuple[str, ...]:
        return self.checks


ANSWERED = gauge("asking_answered", "1 for a check that has got an answer", "path")


class Asking(Collector[AskingSettings, list[str]]):
    """Asks GET {url}/{check} for every check; 200 passes."""

    kind = "asking"
    settings_model = AskingSettings
    metrics = (ANSWERED,)

    @staticmethod
    def new_memory() -> list[str]:
        return []

    def checks(self) -> tuple[Check, ...]:
        interval, retry = self.settings.interval, self.settings.retry
        return tuple(
            Check(name, partial(self.ask, name), interval=interval, retry=retry, recall=self.recall)
            for name in self.settings.checks
        )

    async def ask(self, name: str, report: CheckReport) -> None:
        reply = await self.http.ask(report, "GET", self.http.origin(self.settings.address), f"/{name}")
        report.add(ANSWERED, 1, path=name)
        if reply.status != 200:
            raise Failure(Reason.HTTP_STATUS, f"status {reply.status}")

    def recall(self, report: CheckReport) -> bool:
        """Take a remembered answer as it is."""
        return True

    def conclude(self, reports: Mapping[str, CheckReport]) -> Conclusion:
        return Conclusion()


@pytest.fixture(autouse=True)
def _asking_is_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COLLECTORS, "asking", Asking)


class Upstream:
    """Answers by the last step of the path: ok, fail (500), hang (never), wait (when `gate` is set)."""

    def __init__(self) -> None:
        self.server = Server(self._answer)
        self.gate = asyncio.Event()
        self.asked: list[str] = []
        self.status = 500

    @property
    def url(self) -> str:
        return f"http://{self.server.host}:{self.server.port}"

    def target(self, name: str = "t", *checks: str, **keys: Any) -> TargetSettings:
        """Return a target on this server."""
        written = {"name": name, "collector": "asking", "url": f"{self.url}/{name}", "checks": checks, **keys}
        return AskingSettings.model_validate(written)

    def _answer(self, request: Request) -> Reply | Awaitable[Reply]:
        self.asked.append(request.path)
        match request.path.rpartition("/")[2]:
            case "hang":
                return Hang()
            case "wait":
                return self._wait()
            case "fail":
                return Answer(self.status)
        return Answer(200)

    async def _wait(self) -> Reply:
        await self.gate.wait()
        return Answer(200)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    async with made.server:
        yield made


@dataclass
class Got:
    """What an HTTP client got."""

    status: int
    headers: Mapping[str, str]
    text: str
    body: bytes

    @property
    def samples(self) -> Samples:
        """The samples of the exposition."""
        return read(self.text, openmetrics="openmetrics" in self.headers["Content-Type"])


@dataclass
class Service:
    """An exporter that is served, and a client for it."""

    exporter: Exporter
    prober: Prober
    metrics: ExporterMetrics
    ports: list[int]
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def in_flight(self) -> float:
        """The value of the gauge."""
        return self.metrics.registry.get_sample_value(IN_FLIGHT.name) or 0.0

    async def get(self, path: str, headers: Any = None, method: str = "GET") -> Got:
        """Send a request as nobody would spell it for us: without Accept and Accept-Encoding."""
        skipped = ("Accept", "Accept-Encoding", "User-Agent")
        request = self.client.request(method, self.url + path, headers=headers, skip_auto_headers=skipped)
        async with request as response:
            body = await response.read()
            return Got(response.status, response.headers, body.decode(), body)


@contextlib.asynccontextmanager
async def served(*targets: TargetSettings, listeners: int = 1, **options: Any) -> AsyncIterator[Service]:
    """Serve these targets on free ports of the loopback."""
    metrics = ExporterMetrics()
    prober = Prober(targets, contexts_of(*targets), HttpClient("tests", Clock()), metrics)
    exporter = Exporter(prober, metrics, WebOptions(**options))
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        serving(exporter, [("127.0.0.1", 0)] * listeners) as addresses,
        aiohttp.ClientSession(connector=connector) as client,
    ):
        yield Service(exporter, prober, metrics, [port for _, port in addresses], client)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Give the root logger back as it was."""
    root, server = logging.getLogger(), logging.getLogger("aiohttp.server")
    before = root.handlers[:], root.level, server.level
    yield root
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    server.setLevel(before[2])
