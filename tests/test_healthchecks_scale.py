"""10,000 checks through /metrics: all samples, no long step on the event loop, bounded memory.

The exporter runs as a process of its own, this module as its main program: every callback of its event loop is timed by
the CPU time of the thread, so that neither the machine's load nor a wait for the interpreter lock counts.
"""

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from health_exporter.cli import main
from health_exporter.simulators.healthchecks import (
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    Healthchecks,
    SimulatedCheck,
    many_checks,
)

CHECKS = 10_000
LONGEST_STEP = 0.1
"""Seconds of CPU time."""
MOST_MEMORY = 400 * 2**20
NOW = 1_800_000_000.0


@dataclass
class Measured:
    """An exporter that runs, and what it has measured of itself, once it has ended."""

    url: str
    client: aiohttp.ClientSession
    longest_step: float = 0.0
    step: str = ""
    peak_memory: int = 0
    healthy: list[float] = field(default_factory=list)

    async def scrape(self, target: str, *, compressed: bool = True) -> str:
        """Scrape one target; how long /-/healthy took meanwhile goes to `healthy`, in seconds."""
        watching = asyncio.create_task(self._watch())
        headers = {"Accept-Encoding": "gzip" if compressed else "identity"}
        async with self.client.get(f"{self.url}/metrics?target={target}", headers=headers) as response:
            assert response.status == 200
            text = await response.text()
        watching.cancel()
        return text

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            async with self.client.get(f"{self.url}/-/healthy") as response:
                assert response.status == 200
            self.healthy.append(time.perf_counter() - begun)


@contextlib.asynccontextmanager
async def exporter(directory: Path, *targets: dict[str, Any]) -> AsyncIterator[Measured]:
    config = directory / "config.yml"
    config.write_text(json.dumps({"targets": [{"collector": "healthchecks", "timeout": "60s"} | t for t in targets]}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, "--config.file", str(config), "--web.listen-address", "127.0.0.1:0"),
        cwd=Path(__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        address = None
        while address is None:
            line = (await process.stderr.readline()).decode()
            assert line, "the exporter did not start"
            address = re.search(r"address=\"?(127\.0\.0\.1:\d+)", line)
        timeout = {"X-Prometheus-Scrape-Timeout-Seconds": "60"}
        async with aiohttp.ClientSession(headers=timeout) as client:
            measured = Measured(f"http://{address[1]}", client)
            yield measured
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert b"level=error" not in errors
    found = json.loads(output)
    measured.longest_step, measured.step, measured.peak_memory = found["seconds"], found["step"], found["peak"]


def run_and_measure(arguments: list[str]) -> int:
    """Run the exporter and print the longest step of its event loop and its peak memory."""
    sys.modules["uvloop"] = None  # type: ignore[assignment]
    longest, what = 0.0, ""
    run = asyncio.Handle._run

    def timed(handle: Any) -> None:
        nonlocal longest, what
        begun = time.thread_time()
        run(handle)
        took = time.thread_time() - begun
        if took > longest:
            longest, what = took, repr(handle)

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    status = main(arguments)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    sys.stdout.write(json.dumps({"seconds": longest, "step": what, "peak": int(peak[1]) * 1024 if peak else 0}))
    return status


def series(text: str) -> Counter[str]:
    """Return how many samples each family has; a series that stands twice is an error."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    names = [line.rpartition(" ")[0] for line in lines]
    assert len(set(names)) == len(names)
    return Counter(name.partition("{")[0] for name in names)


NONE_LEFT_OUT = {
    "healthchecks_check_info": CHECKS,
    "healthchecks_check_started": CHECKS,
    "healthchecks_check_last_ping_timestamp_seconds": CHECKS,
    "healthchecks_check_last_duration_seconds": CHECKS,
    "healthchecks_check_pings_total": CHECKS,
    "healthchecks_check_grace_seconds": CHECKS,
}


def scale_project() -> list[SimulatedCheck]:
    """Return 10,000 checks; one name is such that the text it stands in takes four times the memory."""
    checks = many_checks(CHECKS, NOW)
    checks[5].name = "🚀"
    return checks


@pytest.fixture
async def server() -> AsyncIterator[Healthchecks]:
    async with Healthchecks(scale_project(), clock=lambda: NOW) as made:
        yield made


async def test_ten_thousand_checks_are_scraped_without_a_long_step_and_within_bounded_memory(
    server: Healthchecks, tmp_path: Path
) -> None:
    all_of_it = {"name": "all", "url": server.url, "api_key": READ_ONLY_KEY}
    active = {
        "name": "active",
        "url": server.url,
        "api_key": READ_WRITE_KEY,
        "status_samples": "active",
        "tag_metrics": True,
    }
    async with exporter(tmp_path, all_of_it, active) as measured:
        texts = [
            await measured.scrape("all"),
            await measured.scrape("active"),
            await measured.scrape("all", compressed=False),
        ]
    counted = [series(text) for text in texts]

    for number, counts in zip((6, 1, 6), counted, strict=True):
        assert counts["healthchecks_check_status"] == number * CHECKS
        assert {name: counts[name] for name in NONE_LEFT_OUT} == NONE_LEFT_OUT
    assert 140_000 < counted[0].total() == counted[2].total() < 155_000
    assert 90_000 < counted[1].total() < 105_000
    assert counted[1]["healthchecks_tag_checks"] == 48 * 6
    for text in texts:
        assert 'probe_check_success{check="checks",collector="healthchecks"' in text
        assert not re.search(r"^probe_check_failure_reason\{", text, re.MULTILINE)
    assert keys_of(texts[0]) == keys_of(texts[1]) == {check.unique_key for check in server.checks}

    assert len(measured.healthy) > 10
    assert max(measured.healthy) < 5
    assert measured.longest_step < LONGEST_STEP, measured.step
    assert measured.peak_memory < MOST_MEMORY


def keys_of(text: str) -> set[str]:
    return set(re.findall(r'^healthchecks_check_info\{.*unique_key="(\w+)"\}', text, re.MULTILINE))


async def test_more_checks_than_allowed_fail_loudly_and_are_not_cut(server: Healthchecks, tmp_path: Path) -> None:
    small = {"name": "small", "url": server.url, "api_key": READ_ONLY_KEY, "max_checks": CHECKS - 1, "timeout": "30s"}
    narrow = {"name": "narrow", "url": server.url, "api_key": READ_ONLY_KEY, "max_body_size": "1MiB"}
    async with exporter(tmp_path, small, narrow) as measured:
        for name in ("small", "narrow"):
            text = await measured.scrape(name)
            assert series(text)["healthchecks_check_info"] == 0
            assert re.search(r'^probe_check_failure_reason\{check="checks",.*reason="too_large"', text, re.MULTILINE)


if __name__ == "__main__":
    sys.exit(run_and_measure(sys.argv[1:]))
