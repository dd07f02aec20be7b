"""Every duration of the rules and of the Alertmanager config is divided, and nothing else is touched."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs import ROOT, program
from tests.scaling import scale_duration, scale_expression, scale_route, scale_rules

RULE_FILES = sorted(path for path in (ROOT / "alerts").glob("*.yml") if not path.name.startswith("alertmanager"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("5m", "10s"),
        ("30m", "60s"),
        ("45s", "1500ms"),
        ("1h", "120s"),
        ("1h30m", "180s"),
        ("30d", "86400s"),
        ("1w", "20160s"),
        ("300ms", "10ms"),
        ("1ms", "1ms"),
        ("0s", "0s"),
        ("0", "0"),
    ],
)
def test_a_duration_is_divided(written: str, expected: str) -> None:
    assert scale_duration(written, 30) == expected


@pytest.mark.parametrize("text", ["", "m", "5", "5 m", "5x", "-5m", "5m!"])
def test_something_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        scale_duration(text, 30)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("avg_over_time(up[30m])", "avg_over_time(up[60s])"),
        ("up offset 50m", "up offset 100s"),
        ("up offset -5m", "up offset -10s"),
        ("rate(up[ 5m ] offset 1h)", "rate(up[10s] offset 120s)"),
        ("max_over_time(rate(up[5m])[1h:1m])", "max_over_time(rate(up[10s])[120s:2s])"),
        ("max_over_time(up[1h:])", "max_over_time(up[120s:])"),
        ('up{path="[5m] offset 5m"}', 'up{path="[5m] offset 5m"}'),
        (r'up{path="\"[5m]"}[5m]', r'up{path="\"[5m]"}[10s]'),
        ("up{path='[5m]'} # [5m]\n+ up[5m]", "up{path='[5m]'} # [5m]\n+ up[10s]"),
        ("target:errors:ratio_avg30m > 14.4 * 86400", "target:errors:ratio_avg30m > 14.4 * 86400"),
    ],
)
def test_ranges_steps_and_offsets_are_divided(written: str, expected: str) -> None:
    assert scale_expression(written, 30) == expected


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.stem)
def test_no_duration_of_a_rule_file_is_forgotten(path: Path) -> None:
    """As text: a number with a unit, where a duration stands, becomes another one."""
    text = path.read_text(encoding="utf-8")
    written: dict[str, Any] = yaml.safe_load(text)
    scaled = scale_rules(written, 30)
    pairs = [
        (before, after)
        for group, other in zip(written["groups"], scaled["groups"], strict=True)
        for before, after in zip([group, *group["rules"]], [other, *other["rules"]], strict=True)
    ]
    for before, after in pairs:
        changed = {key for key in before if before[key] != after[key]} - {"rules"}
        expected = {key for key in ("interval", "for", "keep_firing_for") if key in before}
        if re.search(r"\[\s*\d|\boffset\b", before.get("expr", "")):
            expected.add("expr")
        assert changed == expected
        assert list(before) == list(after)
        assert not re.search(r"\d[mhdwy]\b(?!\w)", re.sub(r"\w*ratio_avg\w*", "", after.get("expr", "")))


@pytest.mark.e2e
def test_promtool_accepts_the_scaled_rules(tmp_path: Path) -> None:
    files = []
    for path in RULE_FILES:
        files.append(tmp_path / path.name)
        files[-1].write_text(yaml.safe_dump(scale_rules(yaml.safe_load(path.read_text(encoding="utf-8")), 30)))
    command = [program("promtool"), "check", "rules", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_times_of_all_routes_are_divided() -> None:
    below = {"receiver": "b", "repeat_interval": "4h"}
    route = {"receiver": "a", "group_wait": "45s", "group_interval": "5m", "repeat_interval": "12h", "routes": [below]}
    assert scale_route(route, 30) == {
        "receiver": "a",
        "group_wait": "1500ms",
        "group_interval": "10s",
        "repeat_interval": "1440s",
        "routes": [{"receiver": "b", "repeat_interval": "480s"}],
    }
