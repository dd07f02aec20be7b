"""The command line: flags, exit statuses, what is printed, and a process that serves and stops."""

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType
from typing import Any, Self

import pytest

from health_exporter import __version__, cli, demo, reference
from health_exporter.simulators.pryv import PryvCore
from tests.conftest import until
from tests.support import read

LAUNCHER = Path(__file__).parents[1] / "exporter.py"
MARKER = "marker-of-a-secret"
SECONDS = 20.0
"""More than anything here takes."""


@pytest.fixture(autouse=True)
def _tidy(root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give back what main() changes in its process, and have terminals of one width."""
    monkeypatch.setenv("COLUMNS", "200")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def config(directory: Path, url: str = "http://127.0.0.1:1", *lines: str) -> Path:
    """Write a config with one Pryv target, and return its path."""
    path = directory / "config.yml"
    target = f"{{name: pryv-eu, collector: pryv, url: '{url}', username: healthmetrics01, token: '{MARKER}'"
    path.write_text("\n".join([f"targets:\n  - {target}, checks: [hfs, registration]}}", *lines]) + "\n")
    return path


def run(*arguments: object) -> int:
    """Run the command line in this process; the exit status of argparse is one too."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return -1 if not isinstance(end.code, int) else end.code


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Return status and body; anything that is not HTTP is an OSError."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait(condition: Callable[[], bool]) -> None:
    end = monotonic() + SECONDS
    while not condition():
        assert monotonic() < end, "not in time"
        sleep(0.01)


def is_ready(url: str) -> bool:
    try:
        return get(f"{url}/-/ready")[0] == 200
    except OSError:
        return False


# --- flags ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--config.file", "FILE"),
        ("check", "--config.file=FILE"),
        ("--config.file", "FILE", "check"),
        ("--config.file=FILE", "check"),
        ("--config.file=/nowhere", "check", "--config.file=FILE"),
    ],
)
def test_a_flag_stands_before_or_after_the_command_with_or_without_equals_sign(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path)
    assert run(*(argument.replace("FILE", str(path)) for argument in arguments)) == 0
    assert capsys.readouterr().out == f"{path}: 1 targets, no errors\n"


def test_flags_before_and_after_the_command_hold_together() -> None:
    options = cli._parser().parse_args(["--timeout-offset=1s", "--log.level=debug", "serve", "--web.max-requests=3"])
    assert (options.timeout_offset, options.log_level, options.web_max_requests) == (1.0, "debug", 3)


def test_listen_addresses_add_up() -> None:
    arguments = ["--web.listen-address=:1", "serve", "--web.listen-address=:2", "--web.listen-address", "[::1]:3"]
    options = cli._parser().parse_args(arguments)
    assert cli._listen_addresses(options) == [("", 1), ("", 2), ("::1", 3)]
    assert cli._listen_addresses(cli._parser().parse_args([])) == [("", 10054)]


def test_an_offset_of_0_is_taken() -> None:
    assert cli._parser().parse_args(["--timeout-offset=0"]).timeout_offset == 0


def test_without_command_it_serves_and_the_defaults_are_those_of_the_docs() -> None:
    options = cli._parser().parse_args([])
    assert options.command is None
    assert vars(options) == {
        "command": None,
        "config_file": "config.yml",
        "web_listen_address": None,
        "web_listen_address_after": None,
        "web_external_url": None,
        "web_route_prefix": None,
        "web_max_requests": 512,
        "web_disable_exporter_metrics": False,
        "web_probe_on_metrics": True,
        "timeout_offset": 0.5,
        "log_level": "info",
        "log_format": "logfmt",
    }
    assert cli.DEFAULT_ADDRESS == ":10054"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--config=x"], "unrecognized arguments: --config=x"),
        (["no-such-command"], "invalid choice: 'no-such-command'"),
        (["probe"], "the following arguments are required: target"),
        (["probe", "t", "--format=xml"], "invalid choice: 'xml'"),
        (["probe", "t", "--timeout=0"], "must be more than 0"),
        (["--log.level=loud"], "invalid choice: 'loud'"),
        (["--log.format=xml"], "invalid choice: 'xml'"),
        (["--web.max-requests=0"], "'0' is not a number from 1 on"),
        (["--web.max-requests=many"], "'many' is not a number from 1 on"),
        (["--timeout-offset=soon"], "'soon': not a duration"),
        (["--timeout-offset=-1s"], "'-1s': not a duration"),
        (["--web.listen-address=10054"], "not a listen address: '10054'"),
        (["--web.external-url=ftp://host/"], "'ftp://host/' is not an http or https URL"),
        (["--web.external-url=http://host/?a=b"], "is not an http or https URL without query"),
        (["--web.external-url=host"], "'host' is not an http or https URL"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("2m", 120.0), ("3", 3.0), ("1.5", 1.5), ("1s", 1.0)])
def test_durations_are_written_as_in_the_config(text: str, seconds: float) -> None:
    assert cli._parser().parse_args([f"--timeout-offset={text}"]).timeout_offset == seconds


@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [
        ([], ""),
        (["--web.external-url=http://host"], ""),
        (["--web.external-url=https://host:1/health/"], "/health"),
        (["--web.external-url=https://host/a/b"], "/a/b"),
        (["--web.external-url=https://host/a", "--web.route-prefix=/"], ""),
        (["--web.external-url=https://host/a", "--web.route-prefix=b/c/"], "/b/c"),
        (["--web.route-prefix=/x"], "/x"),
    ],
)
def test_the_route_prefix_is_the_path_of_the_external_url_unless_given(arguments: list[str], prefix: str) -> None:
    assert cli._web_options(cli._parser().parse_args(arguments)).route_prefix == prefix


def test_web_flags_reach_the_server() -> None:
    arguments = ["--web.disable-exporter-metrics", "--no-web.probe-on-metrics", "--web.max-requests=7"]
    options = cli._web_options(cli._parser().parse_args(arguments))
    assert (options.exporter_metrics, options.probe_on_metrics, options.max_requests) == (False, False, 7)
    options = cli._web_options(cli._parser().parse_args(["--web.probe-on-metrics"]))
    assert (options.exporter_metrics, options.probe_on_metrics) == (True, True)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    wanted = rf"health_exporter, version {re.escape(__version__)} \(revision \S+, python [0-9.]+\S*\)\n"
    assert re.fullmatch(wanted, capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [["--help"], ["probe", "--help"]])
def test_help_names_every_flag_and_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    text = capsys.readouterr().out
    for flag in ("--config.file", "--web.listen-address", "--timeout-offset", "--log.format"):
        assert flag in text
    if arguments == ["--help"]:
        assert set(cli._COMMANDS) <= set(re.findall(r"^    ([\w-]+)", text, re.MULTILINE))


def test_metrics_prints_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("metrics") == 0
    assert capsys.readouterr().out == reference.markdown()


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_prints_every_error_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(
        tmp_path,
        "http://127.0.0.1:1",
        f"  - {{name: b, collector: pryw, url: 'http://h', token: '{MARKER}'}}",
        f"  - {{name: c, collector: pryv, url: 'http://u:{MARKER}@h', username: healthmetrics01, tokn: '{MARKER}'}}",
        "surplus: 1",
    )
    assert run("check", "--config.file", path) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) >= 4
    for line in lines:
        assert re.match(rf"{re.escape(str(path))}:\d+:\d+: ([\w.\[\]]+: )?\S", line), line
    assert any("targets[1].collector" in line and "did you mean pryv?" in line for line in lines)
    assert any("targets[2].tokn" in line and "did you mean token?" in line for line in lines)
    assert any("targets[2].url" in line for line in lines)
    assert any(": surplus: unknown key" in line for line in lines)
    assert MARKER not in out + err


def test_check_prints_warnings_and_is_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, "http://192.0.2.1")
    assert run("check", "--config.file", path) == 0
    warning, last = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{path}:2:")
    assert warning.endswith("use https (a warning)")
    assert last == f"{path}: 1 targets, no errors"


@pytest.mark.parametrize(("command", "status"), [("check", 1), ("serve", 1), ("probe", 2)])
def test_a_config_that_is_not_there_is_an_error(
    command: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere.yml"
    assert run(command, *(["t"] if command == "probe" else []), f"--config.file={path}") == status
    out, err = capsys.readouterr()
    text, other = (out, err) if command == "check" else (err, out)
    assert text == f"{path}:1:1: cannot read the config: No such file or directory\n"
    assert other == ""


# --- probe ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def simulated_core(**faults: Any) -> Iterator[str]:
    """Run a simulated core in a process of its own, and give its URL."""
    core = (
        "import asyncio, sys\n"
        "from health_exporter.simulators.pryv import PryvCore\n"
        "async def main():\n"
        f"    async with PryvCore(token={MARKER!r}) as core:\n"
        + "".join(f"        core.faults.{name} = {value!r}\n" for name, value in faults.items())
        + "        print(core.url, flush=True)\n"
        "        await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", core], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=LAUNCHER.parent
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.fixture(scope="module")
def healthy() -> Iterator[str]:
    with simulated_core() as url:
        yield url


@pytest.fixture(scope="module")
def unhealthy() -> Iterator[str]:
    with simulated_core(hfs_worker="dead") as url:
        yield url


@pytest.mark.parametrize("core", ["healthy", "unhealthy"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_probe_prints_what_it_found_and_its_status_is_the_verdict(
    core: str, form: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    well = core == "healthy"
    path = config(tmp_path, request.getfixturevalue(core))
    assert run("probe", "pryv-eu", f"--format={form}", "--timeout=9s", f"--config.file={path}") == (0 if well else 1)
    out, err = capsys.readouterr()
    assert MARKER not in out + err
    if form == "text":
        samples = read(out)
        assert samples["probe_success", frozenset({"collector": "pryv", "target": "pryv-eu"}.items())] == well
        assert samples["probe_timeout_seconds", frozenset({"collector": "pryv", "target": "pryv-eu"}.items())] == 9
        failing = [dict(labels)["reason"] for name, labels in samples if name == "probe_check_failure_reason"]
        assert failing == ([] if well else ["http_status"])
        return
    answer = json.loads(out)
    assert (answer["target"], answer["collector"], answer["success"]) == ("pryv-eu", "pryv", well)
    assert list(answer["checks"]) == ["registration", "hfs"]
    hfs = answer["checks"]["hfs"]
    assert (hfs["success"], hfs["reason"], hfs["http_status_code"]) == (
        (True, None, 200) if well else (False, "http_status", 502)
    )
    assert hfs["duration_seconds"] > 0
    assert set(hfs["http_duration_seconds"]) >= {"connect", "processing"}
    assert {"metric": "pryv_username_registered", "labels": {}, "value": 1.0} in answer["samples"]


def test_probe_of_a_target_that_refuses_connections_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        path = config(tmp_path, f"http://127.0.0.1:{bound.getsockname()[1]}")
        assert run("--log.format=json", "probe", "pryv-eu", "--format=json", "--config.file", path) == 1
    out, err = capsys.readouterr()
    assert {check["reason"] for check in json.loads(out)["checks"].values()} == {"connect"}
    lines = [json.loads(line) for line in err.splitlines()]
    assert {(line["msg"], line["check"], line["reason"]) for line in lines} == {
        ("check fails", "hfs", "connect"),
        ("check fails", "registration", "connect"),
    }
    assert MARKER not in out + err


def test_probe_of_an_unknown_target_is_status_2_and_names_the_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("probe", "nobody", "--config.file", config(tmp_path)) == 2
    assert capsys.readouterr() == ("", "unknown target 'nobody'; known: pryv-eu\n")


# --- serve, in this process -----------------------------------------------------------------------------------------


class Lines(io.StringIO):
    """What was written to a stream, readable from another thread."""

    def find(self, pattern: str) -> str:
        """Wait for a match, and return its first group."""
        found: list[str] = []

        def seen() -> bool:
            found[:] = re.findall(pattern, self.getvalue())
            return bool(found)

        wait(seen)
        return found[0]


@contextlib.contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do work in another thread, then send SIGTERM to this process; raise what the work raised."""
    errors: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            errors.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=do)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


def test_serve_answers_until_it_is_told_to_stop(healthy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Lines()
    monkeypatch.setattr(sys, "stderr", stderr)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a signal that comes too early ends the test, not the tests
    path = config(tmp_path, healthy)
    bodies: list[str] = []

    def use() -> None:
        for host in ("127.0.0.1", "localhost"):
            port = stderr.find(rf"msg=listening address={host}:(\d+) targets=1")
            url = f"http://127.0.0.1:{port}"
            wait(lambda url=url: is_ready(url))  # type: ignore[misc]
            bodies.append(get(f"{url}/metrics")[1])

    with beside(use):
        addresses = [f"--web.listen-address={host}:0" for host in ("127.0.0.1", "localhost")]
        assert run("--config.file", path, *addresses) == 0
    for body in bodies:
        samples = read(body)
        assert samples["probe_success", frozenset({"collector": "pryv", "target": "pryv-eu"}.items())] == 1
        assert samples["health_exporter_config_last_reload_successful", frozenset()] == 1
        assert samples["health_exporter_config_last_reload_success_timestamp_seconds", frozenset()] > 1e9
    assert 'msg="stopping: answering the requests in flight"' in stderr.getvalue()
    assert MARKER not in stderr.getvalue() + "".join(bodies)


def test_the_demo_serves_in_this_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = Lines()
    monkeypatch.setattr(sys, "stdout", stdout)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    samples: list[Any] = []

    def use() -> None:
        url = stdout.find(r"open +(http://localhost:\d+/prefix)/\n")
        wait(lambda: is_ready(url))
        samples.append(read(get(f"{url}/metrics")[1]))

    with beside(use):
        assert run("demo", "--web.listen-address=127.0.0.1:0", "--web.route-prefix=prefix") == 0
    success = {
        dict(labels)["target"]: number for (name, labels), number in samples[0].items() if name == "probe_success"
    }
    assert success["pryv-single"] == 1
    assert success["pryv-core-b"] == 0


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_taken_port_is_status_1_and_a_clear_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = [f"--config.file={config(tmp_path)}", f"--web.listen-address=127.0.0.1:{port}"]
        assert run(*arguments, "--log.format=json", command) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    fields = json.loads(line)
    assert (fields["level"], fields["msg"]) == ("error", "cannot serve")
    assert fields["detail"].startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize("said", ["[::1]", "nowhere.example.com"])
def test_an_address_that_cannot_be_listened_on_is_said_as_it_is_written(
    said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert run(f"--config.file={config(tmp_path)}", f"--web.listen-address={said}:1", "--log.format=json") == 1
    fields = json.loads(capsys.readouterr().err)
    assert fields["detail"] == f"cannot listen on {said}:1: Name or service not known"


def test_output_that_nobody_reads_to_its_end_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("targets:\n" + "  - {}\n" * 20_000)
    command = [sys.executable, str(LAUNCHER), "--config.file", str(path), "check"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 1


def test_what_is_unwise_in_the_config_is_logged_when_serving(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = config(tmp_path, "http://192.0.2.1")
        address = f"--web.listen-address=127.0.0.1:{taken.getsockname()[1]}"
        assert run(f"--config.file={path}", address, "--log.format=json") == 1
    first = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (first["level"], first["msg"]) == ("warn", "unwise config")
    assert first["detail"].startswith(f"{path}:2:")


def test_uvloop_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = ModuleType("uvloop")
    vars(uvloop)["new_event_loop"] = asyncio.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", uvloop)
    assert cli._loop_factory() is asyncio.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert cli._loop_factory() is None


async def test_the_demo_has_a_deployment_with_a_stuck_series_worker() -> None:
    async with demo.simulated() as (targets, tls):
        assert [target.name for target in targets][:1] == ["pryv-single"]
        assert {target.tls_config for target in targets} <= set(tls)
        text = demo.greeting("http://localhost:1", targets)
    assert "http://localhost:1/probe?target=pryv-core-b" in text


# --- serve, as a process --------------------------------------------------------------------------------------------


class Process:
    """The exporter as a process of its own."""

    def __init__(self, *arguments: object) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, str(LAUNCHER), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.out, self.err = Lines(), Lines()
        pairs = ((self._popen.stdout, self.out), (self._popen.stderr, self.err))
        self._readers = [threading.Thread(target=self._read, args=pair) for pair in pairs]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(source: Any, into: Lines) -> None:
        with source:
            for line in source:
                into.write(line)

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def end(self) -> int:
        """Wait for the end, and return the exit status."""
        status = self._popen.wait(SECONDS)
        for reader in self._readers:
            reader.join()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self.end()


def test_a_probe_that_is_interrupted_is_silent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = config(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with Process("--config.file", path, "probe", "pryv-eu") as process:
            connection, _ = silent.accept()
            process.signal(signal.SIGINT)
            assert process.end() == 130
            connection.close()
    assert "Traceback" not in process.err.getvalue()


async def test_a_scrape_in_flight_is_answered_whole_before_the_process_ends(tmp_path: Path) -> None:
    async with PryvCore(token=MARKER) as core:
        core.faults.hfs_worker = "frozen"
        path = config(tmp_path, core.url)
        with Process("--config.file", path, "--web.listen-address=127.0.0.1:0") as process:
            port = await asyncio.to_thread(process.err.find, r"address=127\.0\.0\.1:(\d+)")
            url = f"http://127.0.0.1:{port}"
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": "4"}
            scrape = asyncio.create_task(asyncio.to_thread(get, f"{url}/metrics", headers))
            await until(lambda: len(core.server.requests) == 2)
            process.signal(signal.SIGTERM)
            await asyncio.to_thread(process.err.find, "(stopping)")
            await until_refused(url)
            status, body = await scrape
            assert await asyncio.to_thread(process.end) == 0
            text = process.out.getvalue() + process.err.getvalue()
    assert status == 200
    samples = read(body)
    labels = frozenset({"collector": "pryv", "target": "pryv-eu", "check": "hfs", "reason": "timeout"}.items())
    assert samples["probe_check_failure_reason", labels] == 1
    assert "process_open_fds" in {name for name, _ in samples}
    assert MARKER not in body + text


async def until_refused(url: str) -> None:
    """Wait until new scrapes are turned away."""
    while (await asyncio.to_thread(get, f"{url}/metrics"))[0] != 503:  # noqa: ASYNC110 - asked from outside
        await asyncio.sleep(0.01)
    assert (await asyncio.to_thread(get, f"{url}/-/ready"))[0] == 503


async def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    async with PryvCore(token=MARKER) as core:
        core.faults.hfs_worker = "frozen"
        path = config(tmp_path, core.url)
        path.write_text(path.read_text().replace("{name", "{timeout: 20s, name"))
        with Process("--config.file", path, "--web.listen-address=127.0.0.1:0") as process:
            port = await asyncio.to_thread(process.err.find, r"address=127\.0\.0\.1:(\d+)")
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": "20"}
            scrape = asyncio.create_task(asyncio.to_thread(get, f"http://127.0.0.1:{port}/metrics", headers))
            await until(lambda: len(core.server.requests) == 2)
            began = monotonic()
            process.signal(signal.SIGTERM)
            await asyncio.to_thread(process.err.find, "(stopping)")
            process.signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.end) == -signal.SIGTERM
            assert monotonic() - began < 15
            with pytest.raises(OSError, match=r"."):
                await scrape


def test_the_demo_prints_a_url_and_a_command_that_work() -> None:
    with Process("demo", "--web.listen-address=:0") as process:
        url = process.out.find(r"open +(http://\S+)/\n")
        command = shlex.split(process.out.find(r"try +(.+)\n").partition(" | ")[0])
        status, page = get(f"{url}/")
        assert status == 200
        assert page.count("/probe?target=") == int(process.out.find(r"serves (\d+) simulated targets"))
        assert command[:2] == ["curl", "-s"]
        samples = read(get(command[2])[1])
        process.signal(signal.SIGINT)
        assert process.end() == 0
    probed = [dict(labels)["target"] for name, labels in samples if name == "probe_success"]
    assert probed == [command[2].partition("target=")[2]]
