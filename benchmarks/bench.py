"""What the exporter costs: CPU a check, CPU to the first answered scrape, resident memory.

Run with `make bench`. Everything runs on loopback: a simulated Pryv core in a process of its own, the exporter as its
users start it, and, for comparison, a bare aiohttp loop that asks the same server the same things in the same run.
Only CPU time is compared, since wall time tells more about the machine than about the exporter.
"""

import asyncio
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from health_exporter.simulators.pryv import PryvCore

ROOT = Path(__file__).parent.parent
TARGETS = 200
TARGETS_FOR_MEMORY = 100
ROUNDS = 15
TICKS = os.sysconf("SC_CLK_TCK")
ASKED = (
    ("GET", "/reg/{user}/check_username"),
    ("GET", "/reg/hostings"),
    ("GET", "/{user}/events?limit=1"),
    ("OPTIONS", "/{user}/events/nonexistent/series"),
    ("GET", "/{user}/events/nonexistent/series"),
    ("GET", "/reg/service/info"),
    ("GET", "/{user}/access-info"),
)
"""What one probe of a single-core Pryv target asks."""


def main() -> None:
    """Print all figures."""
    with simulated_core() as (url, user, token):
        ratio(url, user, token)
        start(url, user, token)
        memory(url, user, token)


def ratio(url: str, user: str, token: str) -> None:
    """Compare the CPU of the exporter and of a bare loop, round by round."""
    checks = TARGETS * len(ASKED)
    with exporter(url, user, token, TARGETS) as (pid, address), bare_loop(url, user, token) as loop:
        ours, bare = [], []
        for number in range(ROUNDS + 1):
            before = cpu_of(pid)
            body = scrape(address)
            spent = cpu_of(pid) - before
            loop.send(None)
            floor = loop.recv()
            if number:  # the first round warms both up
                ours.append(1000 * spent / checks)
                bare.append(1000 * floor / checks)
        failed = body.count(b" 0.0\n") and [line for line in body.splitlines() if b"_reason" in line]
        if failed:
            raise SystemExit(f"some checks failed: {failed[:5]}")
    ratios = sorted(one / other for one, other in zip(ours, bare, strict=True))
    print(f"CPU per HTTP check, {TARGETS} targets, {checks} checks a scrape, {ROUNDS} rounds:")
    print(f"  exporter  {statistics.median(ours):.3f} ms (the whole process: asking, judging, encoding, serving)")
    print(f"  bare loop {statistics.median(bare):.3f} ms (aiohttp, fresh connections, 100 at a time)")
    print(f"  ratio     {statistics.median(ratios):.2f} (median; {ratios[0]:.2f} to {ratios[-1]:.2f})")


def start(url: str, user: str, token: str) -> None:
    """Measure the CPU from the start of the process to its first answered scrape."""
    spent = []
    for _ in range(3):
        with exporter(url, user, token, 1) as (pid, address):
            scrape(address)
            spent.append(cpu_of(pid))
    print(f"start to first answered scrape, 1 target: {statistics.median(spent):.2f} s of CPU")


def memory(url: str, user: str, token: str) -> None:
    """Measure resident memory after a few scrapes."""
    with exporter(url, user, token, TARGETS_FOR_MEMORY) as (pid, address):
        for _ in range(5):
            scrape(address)
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    print(f"resident memory, {TARGETS_FOR_MEMORY} Pryv targets probed 5 times: {resident:.0f} MiB")


@contextmanager
def simulated_core() -> Iterator[tuple[str, str, str]]:
    """Run a simulated core in a process of its own; give its URL, account and token."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve_core, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()


def _serve_core(connection: Connection) -> None:
    async def serve() -> None:
        async with PryvCore() as core:
            connection.send((core.url, core.username, core.token))
            await asyncio.Event().wait()

    asyncio.run(serve())


@contextmanager
def bare_loop(url: str, user: str, token: str) -> Iterator[Connection]:
    """Run the loop in a process of its own: for every message it asks everything once and sends the CPU it took."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_ask_for_ever, args=(there, url, user, token), daemon=True)
    process.start()
    try:
        yield here
    finally:
        process.kill()


def _ask_for_ever(connection: Connection, url: str, user: str, token: str) -> None:
    async def once() -> None:
        connector = aiohttp.TCPConnector(limit=100, force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers={"Authorization": token}) as session:

            async def ask(method: str, path: str) -> None:
                async with session.request(method, url + path.format(user=user)) as response:
                    await response.read()

            await asyncio.gather(*(ask(method, path) for _ in range(TARGETS) for method, path in ASKED))

    while True:
        connection.recv()
        before = resource.getrusage(resource.RUSAGE_SELF)
        asyncio.run(once())
        after = resource.getrusage(resource.RUSAGE_SELF)
        connection.send(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@contextmanager
def exporter(url: str, user: str, token: str, targets: int) -> Iterator[tuple[int, str]]:
    """Start the exporter with so many targets, every check asked at every scrape; give its pid and address."""
    entry = "  - {{name: t{n}, collector: pryv, url: '{url}', username: {user}, token: {token}}}\n"
    lines = "".join(entry.format(n=n, url=url, user=user, token=token) for n in range(targets))
    lines = lines.replace("}\n", ", storage_interval: 0, access_interval: 0}\n")
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config.yml"
        config.write_text(f"targets:\n{lines}")
        log = Path(directory) / "log"  # a pipe that nobody reads would fill up and stop the exporter
        command = [sys.executable, "exporter.py", "--config.file", str(config), "--web.listen-address", "127.0.0.1:0"]
        with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stderr=output) as process:
            try:
                yield process.pid, address_in(log, process)
            finally:
                process.kill()


def address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until the exporter says in its log where it listens."""
    while process.poll() is None:
        if found := re.search(r"msg=listening .*?address=(\S+)\s", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.01)
    raise SystemExit(f"the exporter has ended:\n{log.read_text(errors='replace')}")


def scrape(address: str) -> bytes:
    """Scrape /metrics as Prometheus does."""
    url = f"http://{address}/metrics"
    request = urllib.request.Request(url, headers={"X-Prometheus-Scrape-Timeout-Seconds": "30"})
    with urllib.request.urlopen(request, timeout=60) as response:
        body: bytes = response.read()
    time.sleep(0.1)
    return body


def cpu_of(pid: int) -> float:
    """Return the CPU seconds a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
