"""Every answer measured on a real Pryv.io core, replayed to the check that can meet it: the verdict it must give."""

import json
from pathlib import Path
from typing import Any

import pytest

from health_exporter.simulators.wire import Answer, Close, Hang, Reply, Request, Server
from tests.support import probe_once, pryv, reasons, samples_of

MEASURED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "pryv_answers.json").read_text(encoding="utf-8")
)["answers"]
CHECKS = ("registration", "platform", "storage", "hfs", "series", "service_info", "access")
JSON_CHECKS = tuple(check for check in CHECKS if check != "hfs")

# check -> reason -> the answers that give it; "" is a check that passes.
VERDICTS: dict[str, dict[str, tuple[str, ...]]] = {
    "registration": {
        "": (
            "check_username_existing",
            "check_username_bad_auth",
            "eventstable_locked_check_username",
            "pgdown_check_username",
            "pghang_check_username",
            "mc_check_username_usera_on_a",
            "mc_check_username_userb_on_b",
            "mc_core_subdomain_check_username",
            "mc_reg_subdomain_check_username",
            "platform_back_check_username",
            "platform_hang_check_username",
            "platform_refused_check_username",
        ),
        "not_found": (
            "check_username_unknown",
            "check_username_reservedword",
            "check_username_noreg",
            "pgback_check_username",
            "mc_check_username_userb_on_a",
            "platform_back_check_username_unknown",
            "platform_hang_check_username_unknown",
            "platform_refused_check_username_unknown",
            "reg_apps",
        ),
        "http_status": (
            "check_username_invalid",
            "check_username_invalid_chars",
            "check_username_uppercase",
            "pgdown_check_username_unknown",
            "cold_pgdown_check_username",
        ),
        "timeout": ("pghang_check_username_unknown",),
        "redirect": ("reg_server_get", "mc_server_get_userb_on_a"),
    },
    "platform": {
        "": ("reg_hostings", "platform_back_hostings", "core_b_down_hostings"),
        "http_status": ("pgdown_hostings", "platform_refused_hostings"),
        "timeout": ("platform_hang_hostings",),
    },
    "storage": {
        "": (
            "events_ok_read",
            "events_ok_manage",
            "events_ok_bearer",
            "events_ok_basic",
            "events_ok_nostream",
            "events_ok_personal",
            "events_hosthdr_long",
            "eventstable_locked_8s_events",
            "eventstable_locked_nostream",
            "pgback_events",
            "pghang_after_events",
            "hfsworker_frozen_events",
            "mc_events_right_core_host",
            "mc_events_right_core_path",
            "mc_events_userb_on_b",
        ),
        "auth": ("events_wrong_token", "events_other_user", "events_empty_token", "events_no_token"),
        "not_found": ("events_unknown_user", "events_unknown_path", "mc_events_unknown_user", "unknown_toplevel"),
        "wrong_target": ("core_b_down_events_userb_on_a",),
        "http_status": (
            "events_bad_limit",
            "pgdown_events",
            "pgdown_events_again",
            "pgdown_events_nostream",
            "platform_refused_events",
        ),
        "timeout": ("pghang_events", "platform_hang_events"),
        "connect": ("apiworker_killed_0", "nothing_listening"),
        "disconnect": ("shutdown_inflight_events", "http_on_tls_port"),
    },
    "hfs": {
        "": (
            "series_options_ok",
            "series_options_noauth",
            "series_options_unknown_user",
            "series_options_direct_hfs",
            "series_options_reaching_api",
            "pghang_series_options",
            "platform_back_series_options",
            "cors_preflight",
            "hfs_root",
        ),
        "http_status": ("hfsworker_killed_options_0",),
        "timeout": ("hfsworker_frozen_options",),
    },
    "series": {
        "": (
            "series_get_nonexistent",
            "series_get_nonexistent_read",
            "series_get_hosthdr_short",
            "platform_back_series_get_after_worker_restart",
            "hfs_cold_after_restart_series_get",
        ),
        "auth": ("series_get_wrong_token", "series_get_noauth"),
        "not_found": ("series_get_unknown_user",),
        # The HFS worker that looked for another path; the API worker in its place; a series, where none can be.
        "wrong_target": (
            "hfs_root",
            "series_get_reaching_api_instead_of_hfs",
            "series_get_real",
            "series_get_notseries",
        ),
        "http_status": ("pghang_series_get", "hfs_cold_pgdown_series_get", "hfsworker_killed_options_0"),
        "timeout": ("platform_back_series_get", "platform_hang_series_get", "platform_refused_series_get"),
    },
    "service_info": {
        "": (
            "reg_service_info",
            "user_service_info",
            "pgdown_service_info",
            "platform_hang_service_info",
            "platform_refused_service_info",
            "mc_reg_subdomain_service_info",
        ),
        "not_found": ("service_info_root", "hfs_system_status_via_public"),
    },
    "access": {
        "": (
            "access_info_read",
            "access_info_manage",
            "access_info_personal",
            "eventstable_locked_access_info",
            "http_gzip",
        ),
        "auth": ("access_info_wrong", "events_wrong_token", "events_no_token"),
        "not_found": ("events_unknown_user",),
        "wrong_target": ("mc_access_info_wrong_core",),
        "http_status": ("pgdown_access_info", "pghang_access_info", "platform_refused_access_info"),
        "timeout": ("platform_hang_access_info",),
    },
}
# Answers that are another thing than what was asked for, with 200: of no use to any of these checks.
GREETINGS = ("root", "health", "healthz", "metrics", "status", "user_root", "keepalive_root", "root_text", "tls_root")
ELSEWHERE = {
    "greeting": (GREETINGS, CHECKS),
    "the HFS worker's own status": (
        ("hfs_system_status", "pgdown_hfs_status", "platform_back_hfs_status"),
        JSON_CHECKS,
    ),
    "a document of another kind": (("oauth_wellknown", "reg_email_username"), JSON_CHECKS),
    "a text": (("events_options",), JSON_CHECKS),
}

ROWS = [
    (check, name, reason or None)
    for check, by_reason in VERDICTS.items()
    for reason, names in by_reason.items()
    for name in names
] + [(check, name, "wrong_target") for names, checks in ELSEWHERE.values() for name in names for check in checks]


def replayed(name: str) -> Reply:
    """Return the measured answer: what had no ETag was streamed."""
    measured = MEASURED[name]
    if "broken" in measured:
        return Close() if measured["broken"] == "closed" else Hang()
    headers = tuple((key, value) for key, value in measured["headers"])
    streamed = "etag" not in {key.lower() for key, _ in headers}
    return Answer(measured["status"], headers, measured["body"].encode(), chunked=streamed)


@pytest.mark.parametrize(("check", "name", "reason"), ROWS)
async def test_every_measured_answer_gives_its_verdict(check: str, name: str, reason: str | None) -> None:
    refused = MEASURED[name].get("broken") == "refused"

    async with Server(lambda _: replayed(name)) as server:
        if refused:
            await server.refuse()
        url = f"http://127.0.0.1:{server.port}"
        patience = 0.15 if reason == "timeout" else 5
        outcome = await probe_once(pryv(url, checks=[check], timeout=patience))

    assert reasons(outcome) == {check: reason}
    status = samples_of(outcome).get(("probe_check_http_status_code", check))
    assert status == MEASURED[name].get("status")


def test_every_fixture_is_used() -> None:
    assert {name for _, name, _ in ROWS} == set(MEASURED)


HEALTHY = {
    "registration": "check_username_existing",
    "platform": "reg_hostings",
    "storage": "events_ok_read",
    "hfs": "series_options_noauth",
    "series": "series_get_nonexistent_read",
    "service_info": "reg_service_info",
    "access": "access_info_read",
}


async def test_a_healthy_core_is_asked_what_was_measured_and_its_answers_are_read() -> None:
    asked = {(MEASURED[name]["method"], MEASURED[name]["path"]): name for name in HEALTHY.values()}

    def answer(request: Request) -> Reply:
        return replayed(asked[request.method, request.target])

    async with Server(answer) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}"))
        got = sorted((request.method, request.target) for request in server.requests)

    assert got == sorted(asked)
    assert reasons(outcome) == dict.fromkeys(HEALTHY)
    samples = samples_of(outcome)
    assert {key: number for key, number in samples.items() if key[0].startswith("pryv") and "skew" not in key[0]} == {
        ("pryv_info", "2.0.0-pre.4", "2026112101", "Pryv Exporter Test"): 1,
        ("pryv_username_registered",): 1,
        ("pryv_hfs_enabled",): 1,
        ("pryv_hosting_available", "default"): 1,
        ("pryv_token_info", "shared", "read"): 1,
    }


HOSTINGS: dict[tuple[str, ...], float] = {
    ("pryv_hosting_available", "host-a"): 1,
    ("pryv_hosting_available", "host-b"): 1,
    ("pryv_hosting_available", "host-c"): 0,
}
# Check, fixture, and what it publishes of its own.
PUBLISHED: list[tuple[str, str, dict[tuple[str, ...], float]]] = [
    ("access", "access_info_read", {("pryv_token_info", "shared", "read"): 1}),
    ("access", "access_info_manage", {("pryv_token_info", "shared", "manage"): 1}),
    ("access", "access_info_personal", {("pryv_token_info", "personal", "full"): 1}),
    ("access", "access_info_wrong", {}),
    ("platform", "platform_back_hostings", HOSTINGS),
    # A stopped core stays available: the flag is no sign of life.
    ("platform", "core_b_down_hostings", HOSTINGS),
    ("platform", "pgdown_hostings", {}),
    ("registration", "check_username_existing", {("pryv_username_registered",): 1}),
    ("registration", "check_username_unknown", {("pryv_username_registered",): 0}),
    ("registration", "pgdown_check_username_unknown", {}),
    ("storage", "events_ok_read", {}),
    ("series", "series_get_nonexistent", {}),
]


@pytest.mark.parametrize(("check", "name", "published"), PUBLISHED)
async def test_what_a_measured_answer_publishes(check: str, name: str, published: dict[tuple[str, ...], float]) -> None:
    async with Server(lambda _: replayed(name)) as server:
        outcome = await probe_once(pryv(f"http://127.0.0.1:{server.port}", checks=[check]))

    samples = samples_of(outcome)
    assert {key: number for key, number in samples.items() if key[0].startswith("pryv") and "skew" not in key[0]} == (
        published
    )
