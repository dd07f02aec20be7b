"""Every fault of the specification, and every healthy state that is noisy: what fires, when, and who is told of it."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from collectors.bundles import Bundles
from health_exporter.simulators.bundles import Bundle
from health_exporter.simulators.healthchecks import SimulatedCheck
from health_exporter.simulators.wire import Answer, Hang, Raw, Reset
from tests.alerts.rules import DIRECTORY
from tests.alerts.rules import alerts as shipped_alerts
from tests.matrix import (
    INHIBITION,
    Alert,
    Kind,
    Recorded,
    Row,
    Script,
    Stage,
    document,
    firing,
    record_all,
    rule_files,
    told,
)
from tests.tls_support import Certificates

Act = Callable[[Stage], object]

DOWN = {"HealthTargetDown critical": 120}
BURN = "HealthErrorBudgetBurn critical"
HTML = (("Content-Type", "text/html"),)
LOGIN = Answer(200, HTML, b"<html><head><title>Sign in</title></head><body></body></html>")
REDIRECT = Answer(302, (("Location", "https://login.example.com/"),))
ERROR = Answer(500, HTML, b"<html><h1>500 Internal Server Error</h1></html>")
BAD_REQUEST = Answer(400, HTML, b"<html><h1>Bad Request (400)</h1></html>")
CUT = Raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{", Reset())
SINGLE: tuple[Kind, ...] = ("pryv", "bundles", "system", "cron")


# --- acts -----------------------------------------------------------------------------------------------------------


def fault(**values: Any) -> Act:
    """Break the server of the target like this."""

    def act(stage: Stage) -> None:
        for name, value in values.items():
            setattr(stage.faults, name, value)

    return act


def put(*way: str, value: Any) -> Act:
    """Set an attribute of the stage, or of one of its parts."""

    def act(stage: Stage) -> None:
        holder: Any = stage
        for step in way[:-1]:
            holder = getattr(holder, step)
        setattr(holder, way[-1], value)

    return act


def both(*acts: Act) -> Act:
    def act(stage: Stage) -> None:
        for one in acts:
            one(stage)

    return act


def retarget(**keys: Any) -> Act:
    return lambda stage: stage.retarget(**keys)


def answers(reply: Any, path: str = "") -> Act:
    return lambda stage: stage.answer(reply, path)


def refuse(stage: Stage) -> None:
    stage.server.cut()


def listen(stage: Stage) -> None:
    stage.server.reopen()


def mend(stage: Stage) -> None:
    stage.mend()


def forget_names(stage: Stage) -> None:
    stage.names.names.clear()


def again(begin: Act, end: Act, *, every: int, lasting: int = 30, until: int) -> Script:
    """Let something happen again and again."""
    script: dict[float, Act] = {}
    for moment in range(0, until, every):
        script |= {moment: begin, moment + lasting: end}
    return script


def certificate(kind: str, days: float = 0.0) -> Act:
    """Give the server a certificate: `good` for so many days, `expired`, or one that nobody has signed."""

    def act(stage: Stage) -> None:
        certificates = stage.certificates
        leaf: Any = certificates.self_signed if kind == "self_signed" else certificates.expired
        if kind == "good":
            leaf = certificates.issue("127.0.0.1", until=datetime.now(UTC) + timedelta(days=days))
        stage.server.ssl = certificates.server(leaf)
        tls = {"ca_file": str(certificates.ca_file)}
        stage.retarget(url="https://127.0.0.1:{port}", tls_config=tls)

    return act


def with_dns(mode: str, **values: Any) -> Act:
    """Break the platform of all cores, and its DNS as that does."""

    def act(stage: Stage) -> None:
        for core in stage.deployment.cores.values():
            for name, value in values.items():
                setattr(core.faults, name, value)
        stage.dns.mode = mode  # type: ignore[assignment]

    return act


async def dns_gone(stage: Stage) -> None:
    await stage.dns.stop()


def move_account(stage: Stage) -> None:
    other = stage.deployment.cores["core-b"]
    stage.retarget(username=other.username, token=other.token)


def account_gone(stage: Stage) -> None:
    stage.faults.account = "deleted"
    stage.dns.records.pop(stage.core_asked.username, None)


def loses_its_api(stage: Stage) -> None:
    stage.core_asked.restart_api()


def restarts_hfs(stage: Stage) -> None:
    stage.core_asked.restart_hfs()


def skew(seconds: float) -> Act:
    return put("skew", value=seconds)


def jump(seconds: float) -> Act:
    """Let the exporter's clock be wrong, and the servers' be right."""

    def act(stage: Stage) -> None:
        stage.skew = -seconds

    return act


def behave(name: str, behaviour: Any, number: int = 9) -> Act:
    return lambda stage: stage.behave(name, behaviour, number)


def breaks(error: Exception) -> Act:
    """Let the exporter have a bug in the check `health` of bundle hosts."""

    def act(stage: Stage) -> None:
        async def ask(*_: object) -> None:
            raise error

        for target in stage.prober.targets.values():
            target.collector = type("Broken", (Bundles,), {"health": ask})

    return act


def kinds(id_: str, broken: str, script: Script, *, of: tuple[Kind, ...] = SINGLE, **keys: Any) -> list[Row]:
    """Return a row for each kind of target."""
    return [Row(id_, kind, broken, script, **({"must": DOWN} | keys)) for kind in of]


# --- faults ---------------------------------------------------------------------------------------------------------

STORAGE = {"HealthPryvStorageDown critical": 180}
HFS = {"HealthPryvHfsDown critical": 180}
PLATFORM = {"HealthPryvPlatformDown critical": 150}
DNS = {"HealthPryvDnsFailing critical": 180}
MISCONFIGURED = {"HealthTargetMisconfigured warning": 300}
AUTH = {"HealthTargetAuthFailing warning": 300}
UNREADABLE = {"HealthCronProjectUnreadable critical": 300}

ANY_TARGET = [
    *kinds("host-refuses", "process gone, port closed", {0: refuse}),
    *kinds("host-silent", "host drops packets", {0: Stage.swallow}, hangs=True, of=("pryv", "bundles")),
    *kinds("host-half-open", "accepts connections, never answers", {0: answers(Hang())}, hangs=True),
    *kinds("reset-mid-answer", "closes in the middle of every answer", {0: answers(CUT)}),
    *kinds(
        "name-gone",
        "the name in the URL does not resolve",
        {0: forget_names},
        of=("system",),
        keys={"url": "http://localhost:{port}"},
    ),
    Row(
        "resolver-dead",
        "many",
        "the exporter's resolver or network is dead",
        {0: forget_names},
        {"HealthManyTargetsDown critical": 90},
        keys={"url": "http://localhost:{port}"},
    ),
    Row(
        "cert-expired",
        "system",
        "certificate past its date",
        {-1: certificate("good", 90), 0: certificate("expired")},
        {"HealthCertificateExpiry critical": 60},
    ),
    Row(
        "cert-3d",
        "system",
        "certificate ends in two days",
        {0: certificate("good", 2)},
        {"HealthCertificateExpiry critical": 600},
        shows="probe_ssl_earliest_cert_expiry",
        until=900,
    ),
    Row(
        "cert-14d",
        "system",
        "certificate ends in ten days",
        {0: certificate("good", 10)},
        {"HealthCertificateExpiry warning": 3600},
        shows="probe_ssl_earliest_cert_expiry",
        until=3900,
    ),
    Row("cert-untrusted", "system", "certificate of nobody known", {0: certificate("self_signed")}, DOWN),
    *kinds("login-page", "a proxy answers a page to sign in, status 200", {0: answers(LOGIN)}),
    *kinds("redirect-all", "everything answers 302", {0: answers(REDIRECT)}),
    Row("wrong-path", "pryv", "register_url lacks a part", {0: retarget(register_url="{url}/wrong")}, MISCONFIGURED),
    Row("too-large", "system", "an answer larger than max_body_size", {0: retarget(max_body_size=300)}, MISCONFIGURED),
    *kinds("all-5xx", "everything answers 500", {0: answers(ERROR)}),
    Row(
        "proxy-429",
        "system",
        "a proxy limits the rate, one probe of eight",
        again(fault(proxy="rate_limit"), fault(proxy="none"), every=240, until=1800),
        {BURN: 1590},
        until=1800,
    ),
    Row(
        "bad-host-header",
        "cron",
        "the server refuses the name it is called by",
        {0: retarget(host_header="other.example.com")},
        DOWN,
    ),
    Row(
        "garbage-answer",
        "bundles",
        "one API answers something that is no JSON",
        {0: fault(front="garbage", only="bundles")},
        {"HealthCheckFailing warning": 300},
    ),
    Row(
        "flapping",
        "bundles",
        "every third probe fails",
        again(fault(front="error"), fault(front="none"), every=90, until=1200),
        {BURN: 840},
        until=1200,
    ),
    Row(
        "slow-rot",
        "bundles",
        "every fiftieth probe fails",
        again(fault(front="error"), fault(front="none"), every=12000, lasting=240, until=12000),
        {"HealthErrorBudgetBurn warning": 60960},
        until=66000,
        history=72000,
        grid=240,
        steady=11760,
        cycle=50,
    ),
    Row(
        "flapping-for-hours",
        "bundles",
        "every fourth probe fails, for hours",
        again(fault(front="error"), fault(front="none"), every=480, lasting=120, until=480),
        {BURN: 1080},
        until=14400,
        history=72000,
        grid=120,
        steady=360,
        cycle=4,
    ),
    Row(
        "near-deadline",
        "bundles",
        "answers take most of the time there is",
        {0: fault(slow_seconds=3.4)},
        {"HealthProbeSlow warning": 600},
        shows="probe_duration_seconds",
        hangs=True,
        seconds=4.0,
        steady=30,
        until=900,
    ),
    Row("creds-wrong", "bundles", "a gateway refuses the credentials", {0: fault(front="auth_wall")}, AUTH),
    Row(
        "one-check-fails",
        "bundles",
        "one API fails, the other is well",
        {0: fault(front="error", only="bundles")},
        {"HealthCheckFailing warning": 300},
    ),
    Row(
        "new-state-word",
        "system",
        "the product has a new word for its status",
        {0: fault(status="resting")},
        {"HealthUnknownState warning": 900},
        shows="system_health_status unknown",
        until=1200,
    ),
    Row(
        "new-state-word",
        "bundles",
        "the product has a new word for a bundle's state",
        {0: fault(states={"search": "resting"})},
        {"HealthBundleDown warning": 300, "HealthUnknownState warning": 900},
        shows="bundle_instances unknown",
        until=1200,
        why="the exporter cannot know whether the new word means well: it says both",
    ),
    Row(
        "restart-loop",
        "system",
        "restarts every ten minutes",
        dict.fromkeys((0, 600, 1200), Stage.restart_system),
        {"HealthServiceRestarting warning": 1200},
        shows="system_health_start_time_seconds",
        until=1500,
    ),
    Row(
        "restart-loop",
        "documented",
        "host restarts every ten minutes",
        {t: lambda s: s.host.restart() for t in (0, 600, 1200)},
        {"HealthServiceRestarting warning": 1200},
        shows="bundle_host_start_time_seconds",
        until=1500,
    ),
    *kinds(
        "restart-loop",
        "host restarts every ten minutes",
        {t: lambda s: s.host.restart() for t in (0, 600, 1200)},
        of=("bundles", "public"),
        must={},
        until=1500,
        why="released hosts do not give their own uptime",
    ),
]

PRYV = [
    Row("pryv-pg-refused", "pryv", "PostgreSQL down", {0: fault(postgres="refused")}, STORAGE),
    Row("pryv-pg-refused", "multi", "PostgreSQL down", {0: fault(postgres="refused")}, STORAGE),
    Row("pryv-pg-frozen", "pryv", "PostgreSQL does not answer", {0: fault(postgres="frozen")}, STORAGE, hangs=True),
    Row("pryv-pg-frozen", "multi", "PostgreSQL does not answer", {0: fault(postgres="frozen")}, STORAGE, hangs=True),
    Row(
        "pryv-pg-cold",
        "pryv",
        "PostgreSQL down, API worker just restarted",
        {0: both(loses_its_api, fault(postgres="refused"))},
        STORAGE,
    ),
    Row("pryv-events-table", "pryv", "events table broken", {0: fault(events_table="broken")}, STORAGE),
    Row(
        "pryv-table-locked",
        "pryv",
        "events table locked for a minute",
        {0: fault(events_table="locked"), 60: fault(events_table="ok")},
        hangs=True,
    ),
    Row(
        "pryv-audit-broken",
        "pryv",
        "audit table broken",
        {0: fault(audit="broken")},
        why="no answer shows it; the exporter does not provoke it either",
    ),
    Row("pryv-platform-single", "pryv", "platform database down", {0: fault(platform="refused")}, PLATFORM),
    Row(
        "pryv-platform-multi",
        "multi",
        "platform database down",
        {0: with_dns("nxdomain", platform="refused")},
        PLATFORM,
        hangs=True,
    ),
    Row(
        "pryv-platform-hang",
        "multi",
        "platform database does not answer",
        {0: with_dns("silent", platform="hanging")},
        PLATFORM,
        hangs=True,
    ),
    Row("pryv-core-dead", "multi", "core stopped", {0: fault(api_worker="dead")}, DOWN),
    Row(
        "pryv-api-frozen",
        "pryv",
        "the only API worker does not answer",
        {0: fault(api_worker="frozen")},
        DOWN,
        hangs=True,
        why="the HFS worker goes on answering `hfs` and `series`",
    ),
    Row(
        "pryv-api-frozen",
        "multi",
        "the only API worker does not answer",
        {0: fault(api_worker="frozen")},
        DOWN,
        hangs=True,
        why="the HFS worker goes on answering `hfs` and `series`",
    ),
    Row(
        "pryv-one-worker",
        "pryv",
        "one of two API workers does not answer",
        {0: fault(api_worker="one_of_two_frozen")},
        {BURN: 990},
        hangs=True,
        until=1260,
        steady=1260,
    ),
    Row(
        "pryv-crash-loop",
        "pryv",
        "PostgreSQL down, and the worker dies at its start",
        {0: fault(postgres="refused", api_worker="dead")},
        DOWN,
    ),
    Row("pryv-hfs-dead", "pryv", "HFS worker down", {0: fault(hfs_worker="dead")}, HFS),
    Row("pryv-hfs-nginx", "pryv", "HFS worker down behind nginx", {0: fault(hfs_worker="dead", proxy="nginx")}, HFS),
    Row("pryv-hfs-frozen", "pryv", "HFS worker does not answer", {0: fault(hfs_worker="frozen")}, HFS, hangs=True),
    Row(
        "pryv-hfs-stuck",
        "pryv",
        "HFS worker was started while PostgreSQL was down for a minute",
        {0: both(fault(postgres="refused"), restarts_hfs), 60: fault(postgres="up")},
        {"HealthPryvSeriesStuck critical": 360},
        hangs=True,
    ),
    Row(
        "pryv-host-pitfall",
        "pryv",
        "first part of the host's name looks like an account",
        {0: retarget(host_header="pryvhost.a.b")},
        MISCONFIGURED,
    ),
    Row(
        "pryv-series-by-api",
        "pryv",
        "proxy gives series calls to the API worker",
        {0: fault(hfs_routing="api")},
        MISCONFIGURED,
    ),
    Row(
        "pryv-wrong-core",
        "multi",
        "the account lives on another core",
        {0: move_account},
        MISCONFIGURED,
        why="DNS rightly names the other core, which is not what `url` is",
    ),
    *kinds(
        "pryv-account-gone",
        "account deleted, or an empty database",
        {0: account_gone},
        of=("pryv", "multi"),
        must={"HealthPryvAccountMissing critical": 300},
    ),
    Row("pryv-token-revoked", "pryv", "access deleted", {0: fault(token="revoked")}, AUTH),
    Row(
        "pryv-token-expiring",
        "pryv",
        "token ends in ten days",
        {0: lambda s: setattr(s.core.faults, "token_expires", s.clock.now + 10 * 86400)},
        {"HealthPryvTokenExpiry warning": 1080},
        shows="pryv_token_expiry_timestamp_seconds",
        until=1500,
    ),
    Row("pryv-token-expired", "pryv", "token has expired", {0: fault(token="expired")}, AUTH),
    Row(
        "pryv-registration",
        "pryv",
        "registration alone fails",
        {0: answers(ERROR, "check_username")},
        {"HealthPryvRegistrationDown critical": 300},
    ),
    Row("pryv-dns-nxdomain", "multi", "name missing, platform well", {0: with_dns("nxdomain")}, DNS),
    Row("pryv-dns-dead", "multi", "DNS process dead", {0: dns_gone}, DNS, hangs=True),
    Row("pryv-dns-dead-silent", "multi", "DNS does not answer", {0: with_dns("silent")}, DNS, hangs=True),
    Row(
        "pryv-dns-wrong-ip",
        "multi",
        "DNS has another address",
        {0: lambda s: s.dns.records.update({s.core_asked.username: ["192.0.2.10"]})},
        DNS,
    ),
    Row(
        "pryv-no-hosting",
        "multi",
        "every hosting marked unavailable",
        {0: lambda s: s.deployment.hostings.update(dict.fromkeys(s.deployment.hostings))},
        {"HealthPryvNoHosting warning": 900},
        shows="pryv_hosting_available 0",
        until=1200,
    ),
    Row(
        "pryv-clock",
        "pryv",
        "clock 6 s wrong",
        {0: skew(6)},
        {"HealthPryvClockSkew warning": 900},
        shows="pryv_clock_skew_seconds",
        until=1200,
    ),
]

BUNDLES = [
    *kinds(
        "bundle-crash-loop",
        "expected bundle dies 3 s after every start",
        {0: behave("weather", "crash_loop")},
        of=("bundles",),
        must={"HealthBundleCrashLooping critical": 120},
        shows="bundle_restarts_total, bundle_instances cooldown",
        until=1800,
    ),
    *kinds(
        "bundle-crash-loop",
        "expected bundle dies 3 s after every start",
        {0: behave("weather", "crash_loop")},
        of=("public",),
        must={"HealthBundleCrashLooping critical": 180},
        shows="bundle_instances cooldown",
        until=1800,
    ),
    *kinds(
        "bundle-crash-loop-other",
        "bundle not expected dies 3 s after every start",
        {0: behave("search", "crash_loop")},
        of=("bundles",),
        must={"HealthBundleCrashLooping warning": 120},
        shows="bundle_restarts_total, bundle_instances cooldown",
        until=1800,
    ),
    *kinds(
        "bundle-crash-loop-other",
        "bundle not expected dies 3 s after every start",
        {0: behave("search", "crash_loop")},
        of=("public",),
        must={"HealthBundleCrashLooping warning": 180},
        shows="bundle_instances cooldown",
        until=1800,
    ),
    *kinds(
        "bundle-doomed",
        "expected bundle dies and never starts again",
        {0: behave("weather", "doomed")},
        of=("bundles",),
        must={"HealthBundleCrashLooping critical": 120},
        shows="bundle_restarts_total, bundle_instances cooldown",
        until=1800,
    ),
    *kinds(
        "bundle-doomed",
        "expected bundle dies and never starts again",
        {0: behave("weather", "doomed")},
        of=("public",),
        must={"HealthBundleCrashLooping critical": 180},
        shows="bundle_instances cooldown",
        until=1800,
    ),
    Row(
        "bundle-gave-up",
        "bundles",
        "host gave up after five restarts (release 0.11 and older)",
        {0: both(put("host", "release", value="0.5"), behave("search", "doomed"))},
        {"HealthBundleCrashLooping warning": 120, "HealthBundleDown warning": 1260},
        shows="bundle_restarts_total, then bundle_instances dead, bundle_consecutive_restarts 5",
        until=1800,
        why="one after the other: a loop as long as the restarts are remembered, then simply down",
    ),
    Row(
        "bundle-gave-up-blind",
        "public",
        "the same, without restart counts and not expected",
        {0: both(put("host", "release", value="0.5"), behave("search", "doomed"))},
        shows="bundle_instances dead",
        until=1800,
        why="not told from an uninstalled bundle; put it under `expect`",
    ),
    *kinds(
        "bundle-expected-dead",
        "expected bundle uninstalled",
        {0: behave("weather", "uninstalled")},
        of=("bundles", "public"),
        must={"HealthBundleDown critical": 330},
        shows="bundle_up 0",
    ),
    Row(
        "bundle-expected-stopped",
        "bundles",
        "expected bundle stopped",
        {0: behave("weather", "stopped")},
        {"HealthBundleDown critical": 300},
        shows="bundle_up 0",
    ),
    Row(
        "bundle-expected-absent",
        "bundles",
        "expected bundle not in the list",
        {0: retarget(expect=["weather", "browser"])},
        {"HealthBundleMissing critical": 300},
        shows="bundle_expected_missing 1",
    ),
    Row(
        "bundle-remote-down-boot",
        "bundles",
        "remote bundle not reached when the host started",
        {0: lambda s: s.boot(Bundle("bash"), Bundle("weather"), Bundle("search", "remote_down_boot"))},
        {"HealthBundleCrashLooping warning": 120},
        shows="bundle_restarts_total, bundle_instances cooldown",
        why="the host tries again and again, which counts as restarts",
    ),
    Row(
        "bundle-one-instance",
        "bundles",
        "one of two instances dies and never starts again",
        {0: behave("bash", "doomed", 1)},
        {"HealthBundleCrashLooping warning": 120},
        shows="bundle_restarts_total",
        until=900,
    ),
    Row(
        "bundle-one-instance-dead",
        "bundles",
        "one of two instances of an expected bundle uninstalled",
        {0: behave("bash", "uninstalled", 1)},
        {"HealthBundleDown critical": 330},
        shows="bundle_up 0",
        keys={"expect": ["bash"]},
    ),
    Row(
        "bundle-slow-crash",
        "bundles",
        "a crash every 40 minutes",
        {0: behave("search", "slow_crash")},
        {"HealthBundleRestartsOften warning": 12180},
        shows="bundle_restarts_total",
        until=18000,
        grid=60,
        history=7200,
    ),
    Row(
        "bundles-none-listed",
        "bundles",
        "no workspace when the host started",
        {0: Stage.boot},
        {"HealthBundleMissing critical": 300},
        shows="bundle_expected_missing 1",
    ),
    Row("bundle-host-slow-boot", "bundles", "port closed for three minutes", {0: refuse, 180: listen}, DOWN),
    Row(
        "bundle-many-down",
        "bundles",
        "node out of memory, many bundles die and do not start",
        {0: lambda s: s.boot(*(Bundle(f"b{n}", "doomed") for n in range(10)), Bundle("weather"))},
        {"HealthBundleCrashLooping warning": 120},
        shows="bundle_restarts_total",
        why="one notification for the target",
    ),
    Row(
        "bundle-many-expected-down",
        "bundles",
        "many expected bundles uninstalled",
        {0: both(behave("bash", "uninstalled"), behave("weather", "uninstalled"), behave("search", "uninstalled"))},
        {"HealthBundleDown critical": 330},
        shows="bundle_up 0",
        why="one notification for the target",
        keys={"expect": ["bash", "weather", "search"]},
    ),
]

COMPONENT = {"HealthSystemComponentDown critical": 180}
OTHER_COMPONENT = {"HealthSystemComponentDown warning": 300}
PIPELINE = {"HealthSystemPipelineNotReady warning": 600}
CHECK = {"HealthCheckFailing warning": 300}
CHECKS_WITH_SFTPGO = {"checks": ["health", "detailed", "consistency", "sftpgo"]}

SYSTEM = [
    *(
        Row(
            f"sys-{name}",
            "system",
            f"{name} in error",
            {0: fault(components={name: "error"})},
            must,
            shows="system_health_component_up 0",
        )
        for name, must in {
            "postgres": COMPONENT,
            "redis": COMPONENT,
            "qdrant": OTHER_COMPONENT,
            "mongodb": OTHER_COMPONENT,
        }.items()
    ),
    Row(
        "sys-postgres-more",
        "system",
        "postgres in error, and so what it holds cannot be checked",
        {0: fault(components={"postgres": "error"}, migrations_missing=("a.sql",), anomalies={("stale", "error"): 1})},
        COMPONENT,
        shows="system_health_component_up 0, system_health_schema_ok 0, system_health_consistency_anomalies",
        until=1800,
    ),
    Row(
        "sys-degraded-unexplained",
        "system",
        "degraded, and no component says why",
        {0: fault(status="degraded")},
        {"HealthSystemDegraded warning": 300},
        shows="system_health_status degraded",
    ),
    Row("sys-detailed-401", "system", "key expired", {0: fault(key="expired")}, AUTH),
    Row(
        "sys-detailed-hangs",
        "system",
        "detailed report never comes",
        {0: fault(hanging=frozenset({"detailed"}))},
        CHECK,
        hangs=True,
    ),
    *(
        Row(
            f"sys-{name}",
            "system",
            words,
            {0: fault(**values)},
            PIPELINE,
            shows=f"system_health_pipeline_{shown} 0",
            until=900,
        )
        for name, words, values, shown in (
            ("processor", "a processor is missing", {"processors_down": frozenset({"ocr"})}, "processor_ready"),
            ("ffmpeg", "ffmpeg is missing", {"ffmpeg": False}, "ffmpeg_ready"),
            ("models", "models are missing", {"models_ready": False}, "models_ready"),
            ("scripts", "scripts are missing", {"scripts_ready": False}, "scripts_ready"),
        )
    ),
    Row(
        "sys-scripts-modified",
        "system",
        "checksums of scripts differ",
        {0: fault(scripts_modified=13)},
        {},
        shows="system_health_pipeline_scripts_integrity_ok 0",
        until=3900,
        why="severity info, which the example gives to nobody",
    ),
    Row(
        "sys-migrations",
        "system",
        "migrations missing",
        {0: fault(migrations_missing=("a.sql",))},
        {"HealthSystemSchemaOutdated warning": 900},
        shows="system_health_schema_ok 0",
        until=1200,
    ),
    Row(
        "sys-identities",
        "system",
        "identity files and database differ",
        {0: fault(identities="out_of_sync")},
        {"HealthSystemIdentitiesOutOfSync warning": 1800},
        shows="system_health_identities_synced 0",
        until=2100,
    ),
    Row(
        "sys-integration",
        "system",
        "integration enabled and unreachable",
        {0: fault(tmdb="unreachable")},
        {"HealthSystemIntegrationUnreachable warning": 900},
        shows="system_health_integration_api_reachable 0",
        until=1200,
    ),
    Row(
        "sys-integration-key",
        "system",
        "integration enabled without a key",
        {0: fault(tmdb="no_key")},
        {"HealthSystemIntegrationUnreachable warning": 900},
        shows="system_health_integration_api_key_configured 0",
        until=1200,
    ),
    Row(
        "sys-anomalies",
        "system",
        "stale processing",
        {0: fault(anomalies={("stale_processing", "warn"): 3})},
        {"HealthSystemInconsistent warning": 1380},
        shows="system_health_consistency_anomalies",
        until=1800,
    ),
    Row(
        "sys-consistency-slow",
        "system",
        "the scan takes longer than there is",
        {0: fault(scan_seconds=3.0)},
        {"HealthCheckFailing warning": 480},
        hangs=True,
        why="asked every five minutes, so it begins up to 3 m later",
    ),
    Row("sys-sftpgo", "system", "statistics fail", {0: fault(sftpgo="failing")}, CHECK, keys=CHECKS_WITH_SFTPGO),
]

CRON = [
    Row(
        "cron-sendalerts-dead",
        "cron",
        "alert loop dead, and then a job stops",
        {0: both(fault(sendalerts="dead"), lambda s: s.jobs(stop=1))},
        {"HealthCronAlertingStuck critical": 450, "HealthCronCheckDown warning": 540},
        shows="healthchecks_alerting_lag_seconds, healthchecks_check_status down",
        until=900,
        why="two things are wrong: the job is down, and nobody has told its owner",
    ),
    Row(
        "cron-check-down",
        "cron",
        "a job stops",
        {0: lambda s: s.jobs(stop=1)},
        {"HealthCronCheckDown warning": 540},
        shows="healthchecks_check_status down",
        until=900,
    ),
    Row(
        "cron-mass-down",
        "cron",
        "all jobs stop, due at the same moment",
        {0: lambda s: s.jobs(stop=6, together=True)},
        {"HealthCronManyChecksDown critical": 600},
        shows="healthchecks_checks down",
        until=1200,
    ),
    Row(
        "cron-mass-down-staggered",
        "cron",
        "all jobs stop, due at moments 40 s apart",
        {0: lambda s: s.jobs(stop=6)},
        {"HealthCronCheckDown warning": 360, "HealthCronManyChecksDown critical": 540},
        shows="healthchecks_checks down",
        until=1200,
        why="the first of them are down before there are five",
    ),
    Row("cron-badrow", "cron", "a row it cannot read", {0: fault(broken_row=True)}, UNREADABLE),
    Row("cron-db-garbage", "cron", "database broken", {0: fault(database="garbage")}, UNREADABLE),
    Row("cron-db-moved", "cron", "database moved away", {0: fault(database="moved")}, UNREADABLE),
    Row("cron-db-unopenable", "cron", "database cannot be opened", {0: fault(database="unopenable")}, DOWN),
    Row(
        "cron-db-locked",
        "cron",
        "database locked for a moment; the alert loop dies of it, later a job stops",
        {0: fault(database="locked", lock_seconds=0.2), 30: fault(database="up"), 60: lambda s: s.jobs(stop=1)},
        {"HealthCronAlertingStuck critical": 450, "HealthCronCheckDown warning": 540},
        shows="healthchecks_alerting_lag_seconds, healthchecks_check_status down",
        until=900,
        why="two things are wrong: the job is down, and nobody has told its owner",
    ),
    Row(
        "cron-harakiri", "cron", "the list takes too long, its worker is killed", {0: fault(harakiri=True)}, UNREADABLE
    ),
    Row("cron-list-silent", "cron", "the list never comes", {0: fault(list_seconds=30.0)}, UNREADABLE, hangs=True),
    Row("cron-key-wrong", "cron", "unknown key", {0: retarget(api_key="hcr_" + "x" * 28)}, AUTH),
    Row(
        "cron-prefix",
        "cron",
        "the URL lacks the server's prefix, or has one too many",
        {0: retarget(url="{url}/hc")},
        DOWN,
    ),
    Row(
        "cron-prefix-half",
        "cron",
        "a proxy passes on status/ alone",
        {0: answers(Answer(404, HTML, b"<html>404</html>"), "/checks/")},
        MISCONFIGURED,
    ),
    Row(
        "cron-nothing",
        "cron",
        "no check has the tag",
        {0: retarget(tags=["prdo"])},
        {"HealthCronNoChecks warning": 1800},
        shows="healthchecks_checks 0",
        until=2100,
    ),
    Row(
        "cron-no-channel",
        "cron",
        "no integration",
        {0: lambda s: s.cron.channels.clear()},
        {"HealthCronNoIntegrations warning": 1800},
        shows="no healthchecks_integrations",
        until=2100,
        keys={"api_key": "hcw_simulatedReadWriteKey0000000", "checks": ["status", "checks", "integrations"]},
    ),
    Row("cron-too-many", "cron", "more checks than max_checks", {0: retarget(max_checks=5)}, MISCONFIGURED),
]

EXPORTER_DOWN = {"HealthExporterDown critical": 120}
EXPORTER = [
    Row("exp-dead", "bundles", "exporter down", {0: put("scraped", value=False)}, EXPORTER_DOWN, shows="up 0"),
    Row(
        "exp-replica-dead",
        "bundles",
        "one exporter of several down, its targets under /probe",
        {0: put("scraped", value=False)},
        EXPORTER_DOWN,
        shows="up 0",
        probe_style=True,
        until=900,
    ),
    Row(
        "exp-dead-unlabelled",
        "bundles",
        "exporter down, its targets under /probe without the label `exporter`",
        {0: put("scraped", value=False)},
        EXPORTER_DOWN,
        shows="up 0",
        probe_style=True,
        exporter_label=False,
        until=900,
    ),
    Row(
        "exp-no-job",
        "bundles",
        "scrape job lost",
        {0: both(put("job", value=False), put("scraped", value=False))},
        {"HealthExporterAbsent critical": 600},
        shows="no up",
        until=900,
        alone=True,
    ),
    Row(
        "exp-one-probe-fails",
        "bundles",
        "the scrape of one target fails",
        {0: put("targets_scraped", value={"t": False})},
        {"HealthTargetNotProbed warning": 600},
        shows="up 0",
        probe_style=True,
        until=900,
    ),
    Row(
        "exp-forgotten-target",
        "bundles",
        "in the config, in no scrape job",
        {0: put("targets_scraped", value={"t": None})},
        {"HealthTargetNotProbed warning": 600},
        shows="health_exporter_checks_total, no probe_success",
        probe_style=True,
        until=900,
    ),
    Row(
        "exp-reload-failed",
        "bundles",
        "a broken config at a reload",
        {0: Stage.fail_reload},
        {"HealthExporterConfigReloadFailed warning": 300},
        shows="health_exporter_config_last_reload_successful 0",
    ),
    Row(
        "exp-overload",
        "bundles",
        "requests turned away",
        dict.fromkeys(range(0, 900, 60), Stage.reject),
        {"HealthExporterRejectingRequests warning": 600},
        shows="health_exporter_requests_rejected_total",
        until=900,
    ),
    Row(
        "exp-bug",
        "bundles",
        "a check ends in an exception",
        {0: breaks(RuntimeError("bug"))},
        {"HealthExporterInternalError warning": 300},
    ),
    Row(
        "exp-crash-loop",
        "bundles",
        "exporter restarts every five minutes",
        {t: put("exporter_started", value=t + 1) for t in (0, 300, 600)},
        {"HealthExporterRestarting warning": 600},
        shows="process_start_time_seconds",
        until=900,
    ),
    Row(
        "exp-isolated",
        "many",
        "exporter without network",
        {0: Stage.swallow},
        {"HealthManyTargetsDown critical": 90},
        hangs=True,
    ),
    Row(
        "exp-own-tls",
        "bundles",
        "exporter's own certificate expired: no scrape succeeds",
        {0: put("scraped", value=False)},
        EXPORTER_DOWN,
        shows="up 0",
    ),
    Row(
        "exp-clock",
        "pryv",
        "exporter's clock 30 s ahead",
        {0: jump(30)},
        {"HealthPryvClockSkew warning": 900},
        shows="pryv_clock_skew_seconds",
        until=1200,
    ),
]

FAULTS = {
    "Any target": ANY_TARGET,
    "Pryv": PRYV,
    "Bundle hosts": BUNDLES,
    "System health": SYSTEM,
    "Healthchecks": CRON,
    "The exporter": EXPORTER,
}

# --- states that are noisy and healthy ------------------------------------------------------------------------------


def check(stage: Stage, **values: Any) -> SimulatedCheck:
    """Return a job's check that is pinged no more, with a long grace."""
    found = stage.cron.checks[0]
    assert found.job is not None
    found.job.stopped = True
    for name, value in ({"grace": 7200} | values).items():
        setattr(found, name, value)
    return found


def overdue(stage: Stage) -> None:
    check(stage, grace=60).ping(stage.clock.now)
    stage.faults.sendalerts = "dead"


def on_time_again(stage: Stage) -> None:
    stage.faults.sendalerts = "alive"
    stage.cron.checks[0].ping(stage.clock.now)


def token_ends(days: float | None) -> Act:
    def act(stage: Stage) -> None:
        stage.core.faults.token_expires = None if days is None else stage.clock.now + days * 86400

    return act


def nothing(stage: Stage) -> None:
    """Leave all as it is."""


RW = {"api_key": "hcw_simulatedReadWriteKey0000000"}
WITH_INTEGRATIONS = {"checks": ["status", "checks", "integrations"]}
EXPIRY = {"HealthPryvTokenExpiry warning": 1080}

NOISY = [
    Row("n-paused", "cron", "paused check", {0: lambda s: s.cron.checks[0].pause(s.clock.now)}),
    Row("n-started", "cron", "job under way for long", {0: lambda s: check(s).ping(s.clock.now, "start")}),
    Row("n-grace", "cron", "late, within its grace", {0: check}),
    Row("n-new", "cron", "never pinged", {0: lambda s: s.cron.checks.append(SimulatedCheck("Brand new"))}),
    Row(
        "n-cron-up-forever",
        "cron",
        "a schedule past its last date",
        {0: lambda s: check(s, schedule="2020-01-01", timeout=0).ping(s.clock.now)},
    ),
    Row(
        "n-sendalerts-restart",
        "cron",
        "alert loop away while a check is 30 s overdue",
        {0: overdue, 390: on_time_again},
    ),
    Row("n-deploy-host", "bundles", "port closed for a minute", {0: refuse, 60: listen}),
    Row("n-deploy-worker", "pryv", "API worker restarts", {0: fault(api_worker="dead"), 15: fault(api_worker="up")}),
    Row(
        "n-one-slow",
        "bundles",
        "one probe takes most of the time there is",
        {0: fault(slow_seconds=3.4), 30: fault(slow_seconds=0.0)},
        hangs=True,
        seconds=4.0,
    ),
    Row("n-one-fail", "system", "one probe fails", {0: fault(process="dead"), 30: fault(process="up")}),
    Row("n-first-scrape", "bundles", "a new target, whose first scrape fails", {0: refuse, 30: listen}, history=0),
    Row("n-one-crash", "bundles", "a bundle crashes once", {0: lambda s: s.host.crash("weather")}, until=900),
    Row(
        "n-two-crashes",
        "bundles",
        "a bundle crashes twice in an hour",
        {t: lambda s: s.host.crash("weather") for t in (0, 1800)},
        until=2400,
    ),
    Row(
        "n-sweep-lag",
        "bundles",
        "a bundle that died is started again by a call before the host notices",
        {0: lambda s: s.host.crash("weather"), 15: lambda s: s.host.restart_inline("weather")},
    ),
    Row("n-uninstalled", "bundles", "a bundle that is not expected uninstalled", {0: behave("search", "uninstalled")}),
    Row("n-stopped", "bundles", "a bundle that is not expected stopped", {0: behave("search", "stopped")}),
    Row(
        "n-in-process",
        "bundles",
        "bundles of the host itself in the list",
        {0: lambda s: s.boot(*map(Bundle, ("home", "usage", "instructions", "skills", "compose", "nb", "weather")))},
    ),
    Row("n-not-offered", "public", "/v1/bundles/health not offered", {0: nothing}),
    Row("n-unit-unknown", "bundles", "unit of the uptime not known yet", {0: lambda s: s.host.restart()}),
    Row("n-hfs-off", "pryv", "a core without HFS", {0: fault(hfs_worker="off")}),
    Row("n-token-never", "pryv", "a token that never ends", {0: nothing}),
    Row(
        "n-access-gap",
        "pryv",
        "expiry of a token that ends soon not readable for some minutes",
        {0: token_ends(10), 1500: answers(ERROR, "access-info"), 1860: mend},
        EXPIRY,
        until=2400,
        why="the ticket for the token stays as it is",
    ),
    Row(
        "n-token-renewed",
        "pryv",
        "a token that ends soon is replaced",
        {0: token_ends(10), 1500: token_ends(None)},
        EXPIRY,
        until=3000,
        why="the ticket is closed within 20 m: what was known is remembered for 15",
    ),
    Row("n-skew", "pryv", "clock 0.8 s wrong", {0: skew(0.8)}, until=1200),
    Row(
        "n-degraded-once",
        "system",
        "degraded for one scrape",
        {0: fault(components={"redis": "error"}), 30: fault(components={})},
    ),
    Row("n-integration-off", "system", "integration disabled", {0: fault(tmdb="disabled")}, until=1200),
    Row(
        "n-anomaly-info",
        "system",
        "anomalies that inform",
        {0: fault(anomalies={("unregistered_with_uuid", "info"): 12})},
        until=1800,
    ),
    Row("n-counter-reset", "bundles", "exporter restarts, its counters begin at 0", {0: Stage.restart_exporter}),
    Row(
        "n-exporter-restart",
        "bundles",
        "exporter away for a minute",
        {0: put("scraped", value=False), 60: both(Stage.restart_exporter, put("scraped", value=True))},
    ),
    Row(
        "n-reload-removes",
        "bundles",
        "target removed, and asked for another minute",
        {
            0: both(Stage.remove_target, put("targets_scraped", value={"t": False})),
            60: put("targets_scraped", value={"t": None}),
        },
        probe_style=True,
        until=900,
    ),
    Row(
        "n-reload-adds",
        "bundles",
        "target added, scraped after a minute",
        {0: put("targets_scraped", value={"t": None}), 60: put("targets_scraped", value={"t": True})},
        probe_style=True,
        until=900,
    ),
    Row("n-ro-key", "cron", "integrations asked with a read-only key", {0: nothing}, keys=WITH_INTEGRATIONS),
    Row(
        "n-hosting-closed",
        "multi",
        "one of several hostings closed",
        {0: lambda s: s.deployment.hostings.update({"host-b": None})},
        until=1200,
    ),
    Row(
        "n-auth-memory",
        "pryv",
        "a refused token, reported from memory",
        {0: fault(token="revoked")},
        AUTH,
        why="one ticket, and nothing else",
    ),
    Row(
        "n-exporter-clock",
        "cron",
        "exporter's clock 30 s ahead",
        {0: lambda s: setattr(s.cron, "clock", lambda: s.clock.now - 30)},
    ),
]

NOT_SEEN = {
    "bundle-hung": "A bundle that hangs is healthy to its host; only a call of one of its tools would tell.",
    "bundle-idle-remote": "A remote bundle whose server is gone is healthy to its host until a tool of it is called.",
    "bundle-pre-0.5": "Hosts before release 0.5 do not notice that a bundle has died.",
    "exp-webconfig": "The last good certificate of the exporter goes on serving; its log tells, no metric does.",
    "n-prometheus-restart": "promtool cannot restart Prometheus. `for` goes on or begins anew, it never fires early.",
    "n-two-proms": "Two Prometheus servers have two sets of rules; that they share a probe is tested with the prober.",
}
"""Rows of the specification that are no rows here, and why."""


# --- tests ----------------------------------------------------------------------------------------------------------

SECTIONS = {**FAULTS, "Noisy and healthy": NOISY}
ROWS = [row for rows in SECTIONS.values() for row in rows]
DOCUMENT = DIRECTORY.parent / "docs" / "alerting-matrix.md"

MUTATIONS = [
    ("host-refuses pryv", "targets.yml", "dns|hfs|series|access|consistency|flips", "dns|hfs|series|consistency|flips"),
    ("pryv-hfs-dead pryv", "pryv.yml", 'check=~"hfs|storage|platform"', 'check=~"storage|platform"'),
    ("n-uninstalled bundles", "bundles.yml", 'state=~"dead|stopped"', 'state=~"stopped"'),
    ("cert-expired system", "targets.yml", "for: 1m", "for: 2m"),
]
REDUNDANT = ["HealthPryvAccountMissing", "HealthBundleCrashLooping"]
"""Sources of inhibition that no row needs: the expressions of what they hide leave these states out as well."""


@dataclass(frozen=True)
class Played:
    """All rows, as recorded, and what fired."""

    recorded: dict[str, Recorded]
    alerts: dict[str, list[Alert]]

    def begins(self, row: Row) -> dict[str, int]:
        """Return when each alert of the row begins, by name and severity."""
        found: dict[str, int] = {}
        for alert in self.alerts[row.name]:
            found.setdefault(f"{alert.labels['alertname']} {alert.labels['severity']}", alert.begin)
        return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    directory = tmp_path_factory.mktemp("matrix")
    recorded = asyncio.run(record_all(ROWS, Certificates(directory)))
    alerts = firing(recorded, directory / "promtool", rule_files())
    return Played({one.row.name: one for one in recorded}, alerts)


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def test_rows_are_told_apart_by_name() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert not {row.id for row in ROWS} & NOT_SEEN.keys()


def test_a_row_that_tells_not_exactly_once_says_why() -> None:
    for rows in FAULTS.values():
        for row in rows:
            assert len(row.must) == 1 or row.why or row.id == "pryv-table-locked", row.name
    for row in NOISY:
        assert not row.must or row.why, row.name


@pytest.mark.e2e
@needs_promtool
class TestMatrix:
    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_a_fault_tells_whom_it_must_when_it_must(self, row: Row, played: Played) -> None:
        begins = played.begins(row)
        assert {text: begins.get(text) for text in row.must} == row.must, begins
        assert told(row, played.alerts[row.name]) == sorted(row.must)

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_nobody_is_told_before(self, row: Row, played: Played) -> None:
        assert all(alert.begin >= 0 for alert in played.alerts[row.name])
        if row.must:
            visible = [alert for alert in played.alerts[row.name] if alert.labels["severity"] != "info"]
            assert min(alert.begin for alert in visible) == min(row.must.values())

    def test_every_alert_fires_in_some_row(self, played: Played) -> None:
        fired = {str(alert.labels["alertname"]) for found in played.alerts.values() for alert in found}
        assert fired == {rule.name for rule in shipped_alerts()}

    def test_every_alert_but_information_tells_somebody_in_some_row(self) -> None:
        must = {text for row in ROWS for text in row.must}
        severities = {f"{rule.name} {rule.labels['severity']}" for rule in shipped_alerts()}
        assert severities - must == {"HealthSystemScriptsModified info"}

    def test_the_document_is_the_matrix(self, played: Played, update_golden: bool) -> None:
        sections = {
            title: [(played.recorded[row.name], played.alerts[row.name]) for row in rows]
            for title, rows in SECTIONS.items()
        }
        text = document(sections, NOT_SEEN)
        if update_golden:
            DOCUMENT.write_text(text, encoding="utf-8")
        assert DOCUMENT.read_text(encoding="utf-8").splitlines() == text.splitlines()

    @pytest.mark.parametrize("mutation", MUTATIONS, ids=[one[0] for one in MUTATIONS])
    def test_the_matrix_sees_a_broken_rule(
        self, mutation: tuple[str, str, str, str], played: Played, tmp_path: Path
    ) -> None:
        name, file, old, new = mutation
        files = rule_files()
        assert old in files[file]
        files[file] = files[file].replace(old, new)
        (row,) = (row for row in ROWS if row.name == name)
        alerts = firing([played.recorded[name]], tmp_path, files)[name]
        mutant = Played(played.recorded, {name: alerts})
        as_it_must = {text: mutant.begins(row).get(text) for text in row.must} == row.must
        assert not (as_it_must and told(row, alerts) == sorted(row.must))

    def test_the_matrix_sees_a_missing_inhibition(self, played: Played) -> None:
        unneeded = []
        for number, rule in enumerate(INHIBITION):
            rest = [*INHIBITION[:number], *INHIBITION[number + 1 :]]
            if all(told(row, played.alerts[row.name], rest) == sorted(row.must) for row in ROWS):
                unneeded.append(rule.source[0].value)
        assert unneeded == REDUNDANT
