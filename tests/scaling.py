"""Rules and Alertmanager configs in quick motion: every duration in them divided by the same factor."""

import re
from collections.abc import Mapping
from typing import Any

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
# What may hold a duration's letters without being one comes first, and is passed over.
_IN_EXPRESSION = re.compile(
    r"""(?P<skipped>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`|\#[^\n]*)"""
    rf"|\[\s*(?P<range>{_DURATION})\s*(?P<colon>:?)\s*(?P<step>{_DURATION})?\s*\]"
    rf"|\boffset\s+(?P<minus>-?)\s*(?P<offset>{_DURATION})"
)
_KEYS_OF_RULES = ("interval", "for", "keep_firing_for")
_KEYS_OF_ROUTES = ("group_wait", "group_interval", "repeat_interval")


def scale_duration(text: str, factor: int) -> str:
    """Divide a Prometheus duration; in seconds where it comes out even, else in milliseconds, and never nothing."""
    if text == "0":
        return text
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    if "".join(number + unit for number, unit in parts) != text or not text:
        raise ValueError(f"not a duration: {text!r}")
    whole = sum(int(number) * UNITS[unit] for number, unit in parts)
    milliseconds = max(round(whole / factor), 1 if whole else 0)
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"


def scale_expression(expression: str, factor: int) -> str:
    """Divide the ranges, the steps of subqueries and the offsets of a PromQL expression; not its numbers."""

    def scaled(found: re.Match[str]) -> str:
        if found["skipped"]:
            return found["skipped"]
        if found["offset"]:
            return f"offset {found['minus']}{scale_duration(found['offset'], factor)}"
        step = scale_duration(found["step"], factor) if found["step"] else ""
        return f"[{scale_duration(found['range'], factor)}{found['colon']}{step}]"

    return _IN_EXPRESSION.sub(scaled, expression)


def scale_rules(document: Mapping[str, Any], factor: int) -> dict[str, Any]:
    """Return a rule file, as decoded from YAML, with every duration divided."""
    return {
        "groups": [
            _scaled(group, factor)
            | {
                "rules": [
                    _scaled(rule, factor) | {"expr": scale_expression(rule["expr"], factor)} for rule in group["rules"]
                ]
            }
            for group in document["groups"]
        ]
    }


def scale_route(route: Mapping[str, Any], factor: int) -> dict[str, Any]:
    """Return a route of an Alertmanager config, and those below it, with every duration divided."""
    scaled = _scaled(route, factor, _KEYS_OF_ROUTES)
    if "routes" in route:
        scaled["routes"] = [scale_route(below, factor) for below in route["routes"]]
    return scaled


def _scaled(written: Mapping[str, Any], factor: int, keys: tuple[str, ...] = _KEYS_OF_RULES) -> dict[str, Any]:
    return {key: scale_duration(str(value), factor) if key in keys else value for key, value in written.items()}
