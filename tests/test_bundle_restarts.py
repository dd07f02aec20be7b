"""A counter from restart counts that are none: measured sequences, the simulated host, any server at all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors.base import NAMED_THINGS, CheckReport
from collectors.bundle_restarts import UNITS, Restarts, Sight, Uptime
from collectors.bundles import STATES, Seen, read_listing
from health_exporter.simulators.bundles import Behaviour, Bundle, BundleHost, Mode, Release
from tests.support import FakeClock

WALL = 1_800_000_000.0
DOCUMENTED = ("documented", "docs_variant")


@dataclass
class Watch:
    """`Restarts` fed with what a host lists, and what really happened since the first look."""

    host: BundleHost
    now: Callable[[], float]
    unit: float | None = None
    restarts: Restarts = field(default_factory=Restarts)
    before: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Take one look, as the collector does."""
        now = self.now()
        listing = read_listing(self.host.listing())
        seen = Seen(listing, CheckReport("states"), WALL + now, now, 0.0)
        host = Uptime(float(int(self.host.uptime())), now) if self.host.mode in DOCUMENTED else None
        self.restarts.observe(seen.sights(listing.bundles), WALL + now, unit=self.unit, host=host)
        for name in listing.bundles:
            self.before.setdefault(name, self.host.true_restarts(name))

    @property
    def counted(self) -> dict[str, int]:
        """What the exporter would publish."""
        return {name: bundle.total for name, bundle in self.restarts.bundles.items()}

    @property
    def really(self) -> dict[str, int]:
        """What happened."""
        return {name: self.host.true_restarts(name) - before for name, before in self.before.items()}


def watch(
    bundles: Iterable[Bundle], mode: Mode = "recon", *, release: Release = "0.12", unit: str = "auto"
) -> tuple[Watch, FakeClock]:
    clock = FakeClock()
    now = clock.clock.monotonic
    return Watch(BundleHost(bundles, mode, now, release=release), now, UNITS.get(unit)), clock


# --- the measured sequences -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What a server says of one instance: (second from which it says so, state, count, second of the start)."""

    steps: tuple[tuple[float, str, int, float | None], ...]
    restarts: int
    """How many restarts there really are after the first look."""
    seconds: float
    """How long it is watched."""


# Boot at second 0; sweeps, and with them all counts, at 30, 60, ...; a restart comes 1, 2, 4, 8, 16 s after its sweep.
ONE_CYCLE: tuple[tuple[float, str, int, float | None], ...] = (
    (0, "healthy", 0, 0),
    (30, "restarting", 1, 0),
    (31, "healthy", 1, 31),
    (60, "restarting", 2, 31),
    (62, "healthy", 2, 62),
    (90, "restarting", 3, 62),
    (94, "healthy", 3, 94),
    (120, "restarting", 4, 94),
    (128, "healthy", 4, 128),
    (150, "restarting", 5, 128),
    (166, "healthy", 5, 166),
    (180, "cooldown", 0, 166),
    (480, "restarting", 1, 166),
    (481, "healthy", 1, 481),
    (510, "restarting", 2, 481),
    (512, "healthy", 2, 512),
)
MEASURED: dict[str, Said] = {
    "crash loop": Said(ONE_CYCLE, 7, 541),
    "single crash": Said(
        ((0, "healthy", 0, 0), (30, "restarting", 1, 0), (31, "healthy", 1, 31), (90, "healthy", 0, 31)), 1, 300
    ),
    "never starts again": Said(
        (
            (0, "healthy", 0, 0),
            *((30 * n, "restarting", n, 0.0) for n in range(1, 6)),
            (180, "cooldown", 0, 0),
            *((450 + 30 * n, "restarting", n, 0.0) for n in range(1, 6)),
            (630, "cooldown", 0, 0),
        ),
        10,
        900,
    ),
    "given up for ever, up to 0.11": Said((*ONE_CYCLE[:11], (180.0, "dead", 5, 166.0)), 5, 3600),
    "restarted by a tool call": Said(((0, "healthy", 0, 0), (109, "healthy", 0, 109)), 1, 300),
    "never started": Said(((0, "restarting", 0, None), (30, "restarting", 1, None)), 1, 61),
    "uninstalled": Said(((0, "healthy", 0, 0), (150, "dead", 0, 0)), 0, 900),
    "hung": Said(((0, "healthy", 0, 0),), 0, 900),
    "steady, already restarted before the first look": Said(((0, "healthy", 3, -20),), 0, 900),
    "being restarted at the first look": Said(((0, "restarting", 2, -60), (7, "healthy", 2, 7)), 0, 300),
}
# As documented: seconds, 0 while down; the count rises when the crash is seen.
AS_DOCUMENTED: dict[str, Said] = {
    "crash loop": Said(
        (
            (0, "running", 0, 0),
            (30, "crashed", 1, None),
            (31, "running", 1, 31),
            (60, "crashed", 2, None),
            (62, "starting", 2, None),
            (66, "running", 2, 66),
            (90, "dead", 2, None),
        ),
        2,
        300,
    ),
    "restarted at once, the count first": Said(
        ((0, "running", 0, 0), (40, "running", 1, 0), (55, "running", 1, 55)), 1, 300
    ),
    "no fall to 0, as the page has it": Said(
        ((0, "running", 3, -50), (100, "running", 4, 100), (200, "running", 5, 200)), 2, 300
    ),
}


def said(sequence: Said, now: float) -> tuple[str, int, float | None]:
    return [step[1:] for step in sequence.steps if step[0] <= now][-1]


def counted_from(sequence: Said, looks: Iterable[float], unit: float, *, alone: bool = False) -> tuple[int, ...]:
    """Return the totals after each look at a server that says this of one bundle, beside one that is steady."""
    restarts = Restarts()
    totals = []
    for now in looks:
        state, count, start = said(sequence, now)
        uptime = None if start is None else Uptime((now - start) / unit, now)
        seen = {"x": [Sight(state, uptime, count)]}
        if not alone:
            seen["steady"] = [Sight("healthy", Uptime((now + 100) / unit, now), 0)]
        restarts.observe(seen, WALL + now)
        totals.append(restarts.bundles["x"].total)
    return tuple(totals)


def looks(interval: float, phase: float, seconds: float) -> list[float]:
    return [phase + interval * n for n in range(int((seconds - phase) // interval) + 1)]


ALL_SEQUENCES = [(name, sequence, 0.001) for name, sequence in MEASURED.items()] + [
    (f"documented: {name}", sequence, 1.0) for name, sequence in AS_DOCUMENTED.items()
]


@pytest.mark.parametrize("interval", [5, 15, 30])
@pytest.mark.parametrize(
    ("sequence", "unit"), [row[1:] for row in ALL_SEQUENCES], ids=[row[0] for row in ALL_SEQUENCES]
)
def test_what_really_happened_is_counted(sequence: Said, unit: float, interval: float) -> None:
    first = sequence.steps[1][0] if len(sequence.steps) > 1 else interval
    for tenth in range(0, int(10 * min(interval, first)), 7):
        assert counted_from(sequence, looks(interval, tenth / 10, sequence.seconds), unit)[-1] == sequence.restarts


@pytest.mark.parametrize(
    ("sequence", "unit"), [row[1:] for row in ALL_SEQUENCES], ids=[row[0] for row in ALL_SEQUENCES]
)
def test_longer_intervals_never_count_too_much(sequence: Said, unit: float) -> None:
    for interval in (45, 60, 90, 120, 300):
        for phase in range(interval):
            totals = counted_from(sequence, looks(interval, phase, sequence.seconds), unit)
            assert totals == tuple(sorted(totals))
            assert all(total <= sequence.restarts for total in totals)


@pytest.mark.parametrize("interval", [5, 15, 30])
def test_a_bundle_that_is_alone_on_its_host_is_counted_by_its_count(interval: float) -> None:
    for name in ("crash loop", "single crash", "never starts again"):
        sequence = MEASURED[name]
        assert (
            counted_from(sequence, looks(interval, 1.5, sequence.seconds), 0.001, alone=True)[-1] == sequence.restarts
        )


# --- single rules ---------------------------------------------------------------------------------------------------


def sight(state: str, uptime: float | None, count: int | None, at: float) -> Sight:
    return Sight(state, None if uptime is None else Uptime(uptime, at), count)


def totals_of(
    *rows: Sequence[tuple[str, float | None, int | None]], every: float = 15.0, host: Any = None
) -> list[int]:
    """Return the sum of all totals after each look; a row is what it shows of bundles a, b, ..., uptimes in seconds."""
    restarts, totals = Restarts(), []
    for number, row in enumerate(rows):
        at = number * every
        seen = {chr(97 + index): [sight(*entry, at)] for index, entry in enumerate(row)}
        of_host = None if host is None or host[number] is None else Uptime(host[number], at)
        restarts.observe(seen, WALL + at, unit=1.0, host=of_host)
        totals.append(sum(bundle.total for bundle in restarts.bundles.values()))
    return totals


Row = Sequence[tuple[str, float | None, int | None]]
RULES: dict[str, tuple[list[Row], list[int]]] = {
    "a rise counts its difference": ([[("healthy", 10, 0)], [("healthy", 5, 3)]], [0, 3]),
    "a fall to n counts n": ([[("healthy", 10, 5)], [("healthy", 5, 2)]], [0, 2]),
    "a fall to 0 counts nothing": ([[("healthy", 10, 5)], [("healthy", 25, 0)]], [0, 0]),
    "a jump without a rise counts one": (
        [[("healthy", 100, 0), ("healthy", 100, 0)], [("healthy", 5, 0), ("healthy", 115, 0)]],
        [0, 1],
    ),
    "a jump of 2 s is none": (
        [[("healthy", 100, 0), ("healthy", 100, 0)], [("healthy", 113, 0), ("healthy", 115, 0)]],
        [0, 0],
    ),
    "a start time that moves back is none": (
        [[("healthy", 100, 0), ("healthy", 100, 0)], [("healthy", 900, 0), ("healthy", 115, 0)]],
        [0, 0],
    ),
    "a rise and its jump a look later are one": (
        [
            [("healthy", 100, 0), ("healthy", 100, 0)],
            [("restarting", 115, 1), ("healthy", 115, 0)],
            [("healthy", 14, 1), ("healthy", 130, 0)],
        ],
        [0, 1, 1],
    ),
    "a rise and its jump a look later are one, also if the state says up all the time": (
        [
            [("healthy", 100, 0), ("healthy", 100, 0)],
            [("healthy", 115, 1), ("healthy", 115, 0)],
            [("healthy", 5, 1), ("healthy", 130, 0)],
            [("healthy", 5, 1), ("healthy", 145, 0)],
        ],
        [0, 1, 1, 2],
    ),
    "a rise with the jump of the one before it does not make the next jump another": (
        [
            [("restarting", 100, 3), ("healthy", 100, 0)],
            [("restarting", 115, 4), ("healthy", 115, 0)],
            [("restarting", 10, 5), ("healthy", 130, 0)],
            [("cooldown", 9, 0), ("healthy", 145, 0)],
        ],
        [0, 1, 2, 2],
    ),
    "a jump after recovery is another": (
        [
            [("healthy", 100, 0), ("healthy", 100, 0)],
            [("restarting", 115, 1), ("healthy", 115, 0)],
            [("healthy", 14, 1), ("healthy", 130, 0)],
            [("healthy", 3, 1), ("healthy", 145, 0)],
        ],
        [0, 1, 1, 2],
    ),
    "a start after the host gave up is another": (
        [
            [("restarting", 100, 4), ("healthy", 100, 0)],
            [("restarting", 115, 5), ("healthy", 115, 0)],
            [("cooldown", 130, 0), ("healthy", 130, 0)],
            [("healthy", 3, 0), ("healthy", 145, 0)],
        ],
        [0, 1, 1, 2],
    ),
    "the start of a restart that was under way at first sight is none": (
        [[("restarting", 100, 1), ("healthy", 100, 0)], [("healthy", 3, 1), ("healthy", 115, 0)]],
        [0, 0],
    ),
    "the first start ever is none": ([[("restarting", None, 0)], [("healthy", 3, 0)]], [0, 0]),
    "all start times at once are the host": (
        [[("healthy", 100, 0), ("healthy", 90, 2)], [("healthy", 4, 0), ("healthy", 3, 0)]],
        [0, 0],
    ),
    "a rise beside a restart of the host counts": (
        [[("healthy", 100, 0), ("healthy", 90, 0)], [("healthy", 4, 0), ("healthy", 1, 1)]],
        [0, 1],
    ),
    "a bundle that was down when the host restarted is not counted when it is back": (
        [
            [("running", 100, None), ("running", 90, None)],
            [("running", 4, None), ("crashed", None, None)],
            [("running", 19, None), ("running", 9, None)],
        ],
        [0, 0, 0],
    ),
    "without a count the start times alone count": (
        [
            [("running", 100, None), ("running", 90, None)],
            [("crashed", None, None), ("running", 105, None)],
            [("running", 9, None), ("running", 120, None)],
        ],
        [0, 0, 1],
    ),
    "without an uptime the counts alone count": (
        [[("crashed", None, 1)], [("running", None, 2)], [("running", None, 0)], [("running", None, 1)]],
        [0, 1, 1, 2],
    ),
    "what was counted by its start is not counted again when the count is back": (
        [
            [("healthy", 100, 0), ("healthy", 100, 0)],
            [("healthy", 5, None), ("healthy", 115, 0)],
            [("healthy", 20, 2), ("healthy", 130, 0)],
        ],
        [0, 1, 2],
    ),
    "what was counted by its count is not counted again when the start time is back": (
        [
            [("healthy", 100, 0), ("healthy", 100, 0)],
            [("healthy", None, 1), ("healthy", 115, 0)],
            [("healthy", None, 0), ("healthy", 130, 0)],
            [("healthy", 40, 0), ("healthy", 145, 0)],
        ],
        [0, 1, 1, 1],
    ),
    "a count that is missing for a while is compared with the last one": (
        [[("healthy", 10, 1)], [("healthy", 25, None)], [("healthy", 5, 3)]],
        [0, 0, 2],
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_one_rule_at_a_time(name: str) -> None:
    rows, totals = RULES[name]
    assert totals_of(*rows) == totals


def test_the_hosts_own_uptime_tells_a_restart_of_the_host_from_one_of_its_only_bundle() -> None:
    rows: list[Row] = [[("running", 100, 0)], [("running", 3, 0)]]
    assert totals_of(*rows, host=[500, 515]) == [0, 1]
    assert totals_of(*rows, host=[500, 3]) == [0, 0]
    assert totals_of(*rows, host=[500, None]) == [0, 0]
    assert totals_of(*rows, host=[None, 3]) == [0, 0]


def test_the_hosts_own_restart_counts_nothing_though_a_bundle_seems_to_go_on() -> None:
    rows: list[Row] = [[("running", 100, 0), ("running", 100, 0)], [("running", 3, 0), ("running", 115, 0)]]
    assert totals_of(*rows) == [0, 1]
    assert totals_of(*rows, host=[500, 2]) == [0, 0]


def test_instances_of_one_name_are_told_apart_by_their_order_and_summed() -> None:
    restarts = Restarts()
    restarts.observe({"x": [sight("healthy", 9, 1, 0), sight("healthy", 9, 0, 0)]}, WALL)
    restarts.observe({"x": [sight("healthy", 3, 2, 15), sight("healthy", 2, 2, 15)]}, WALL + 15)
    assert restarts.bundles["x"].total == 3


def test_another_number_of_instances_is_looked_at_anew() -> None:
    restarts = Restarts()
    two = [sight("healthy", 100, 0, 0), sight("healthy", 10, 3, 0)]
    restarts.observe({"x": two, "y": [sight("healthy", 100, 0, 0)]}, WALL, unit=1.0)
    restarts.observe({"x": [sight("healthy", 25, 3, 15)], "y": [sight("healthy", 115, 0, 15)]}, WALL + 15, unit=1.0)
    assert restarts.bundles["x"].total == 0
    restarts.observe({"x": [sight("healthy", 3, 4, 30)], "y": [sight("healthy", 130, 0, 30)]}, WALL + 30, unit=1.0)
    assert restarts.bundles["x"].total == 1


def test_a_bundle_that_was_away_keeps_its_total_and_is_looked_at_anew() -> None:
    restarts = Restarts()
    for at, seen in enumerate([{"x": 0}, {"x": 2}, {}, {"x": 7}, {"x": 8}]):
        restarts.observe({name: [sight("healthy", None, count, at)] for name, count in seen.items()}, WALL + at)
    assert restarts.bundles["x"].total == 3


def test_answers_that_take_their_time_are_no_restart() -> None:
    restarts = Restarts()
    for at, uptime, doubt in ((0.0, 100.0, 0.0), (15.0, 111.0, 4.0), (30.0, 130.0, 0.0)):
        seen = {"x": [Sight("healthy", Uptime(uptime, at, doubt), 0)]}
        restarts.observe(seen, WALL + at, unit=1.0, host=Uptime(at + 500, at))
    assert restarts.bundles["x"].total == 0


def test_names_that_are_gone_are_forgotten_when_they_are_too_many() -> None:
    restarts = Restarts()
    for number in range(NAMED_THINGS + 500):
        restarts.observe({str(number): [sight("healthy", None, 0, number)]}, WALL + number)
    assert len(restarts.bundles) == NAMED_THINGS + 1
    assert str(NAMED_THINGS + 499) in restarts.bundles
    assert "0" not in restarts.bundles


# --- the unit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uptimes", "elapsed", "unit"),
    [
        ((100, 115), 15, 1.0),
        ((100, 116), 15, 1.0),
        ((100_000, 115_000), 15, 0.001),
        ((100_000, 115_310), 15, 0.001),
        ((0, 1), 1, 1.0),
        ((7, 1007), 1, 0.001),
        ((100, 100), 1, None),
        ((100, 3), 15, None),
        ((100_000, 3_000), 15, None),
        ((100, 4000), 300, None),
        ((100, 110), 0.01, None),
        ((None, 100), 15, None),
        ((100, None), 15, None),
    ],
)
def test_the_unit_is_found_by_growth(
    uptimes: tuple[float | None, float | None], elapsed: float, unit: float | None
) -> None:
    restarts = Restarts()
    for at, uptime in zip((0.0, float(elapsed)), uptimes, strict=True):
        restarts.observe({"x": [sight("restarting", uptime, 0, at)]}, WALL + at)
    assert restarts.unit == unit


def test_one_bundle_that_grows_is_enough_for_the_unit_of_all() -> None:
    restarts = Restarts()
    restarts.observe({"x": [sight("healthy", 100_000, 0, 0)], "y": [sight("healthy", 60_000, 0, 0)]}, WALL)
    restarts.observe({"x": [sight("healthy", 115_000, 0, 15)], "y": [sight("healthy", 4_000, 0, 15)]}, WALL + 15)
    assert restarts.unit == 0.001
    assert restarts.bundles["y"].total == 1
    assert restarts.bundles["y"].latest_start == pytest.approx(WALL + 11)


@pytest.mark.parametrize(
    ("looks", "unit"),
    [
        ([(100, 100), (115, 115), (200_000, 200_000), (215_000, 215_000)], 0.001),
        ([(35_000, None), (50_000, 10), (50, 25)], 1),
    ],
)
def test_a_unit_that_changes_counts_nothing(looks: list[tuple[float, float | None]], unit: float) -> None:
    restarts, units = Restarts(), []
    for number, (x, y) in enumerate(looks):
        at = 15.0 * number
        restarts.observe({"x": [sight("running", x, 0, at)], "y": [sight("running", y, 0, at)]}, WALL + at)
        units.append(restarts.unit)
    assert {bundle.total for bundle in restarts.bundles.values()} == {0}
    assert units[1] != units[-1] == unit


# --- the simulated host ---------------------------------------------------------------------------------------------

EVERY_KIND = [Bundle(behaviour, behaviour, 100) for behaviour in get_args(Behaviour)]


@pytest.mark.parametrize("interval", [5, 15, 30])
@pytest.mark.parametrize("mode", ["recon", "documented", "docs_variant"])
@pytest.mark.parametrize("release", ["0.12", "0.5", "0.1"])
def test_two_hours_of_every_behaviour_are_counted_exactly(mode: Mode, release: Release, interval: float) -> None:
    for phase in (0.3, 4.9):
        watched, clock = watch(EVERY_KIND, mode, release=release)
        clock.advance(phase)
        for _ in range(int(7200 // interval)):
            watched.look()
            clock.advance(interval)
        watched.look()
        assert watched.counted == watched.really
        assert watched.really["crash_loop"] == (80 if release == "0.12" else 5)


def test_what_is_missed_at_60_s_is_what_the_documentation_says() -> None:
    missed: dict[str, list[int]] = {"crash_loop": [], "doomed": [], "crash_once": [], "slow_crash": [], "steady": []}
    for phase in range(60):
        watched, clock = watch(EVERY_KIND)
        clock.advance(phase)
        watched.look()
        for _ in range(60):
            clock.advance(60)
            watched.look()
        for name, lost in missed.items():
            lost.append(watched.really[name] - watched.counted[name])
    assert set(missed["crash_loop"]) == {0, 4}
    assert missed["crash_loop"].count(4) == 16
    assert set(missed["doomed"]) == {4}
    assert not any(missed["crash_once"] + missed["slow_crash"] + missed["steady"])


def act(host: BundleHost, what: str, name: str) -> None:
    """Let something happen to a host, or nothing."""
    match what:
        case "crash":
            host.crash(name)
        case "restart inline":
            host.restart_inline(name)
        case "restart the host":
            host.restart()


NAMES = ("a", "b", "b", "c")
HOSTS = st.tuples(
    *(st.builds(Bundle, st.just(name), st.sampled_from(get_args(Behaviour)), st.floats(0, 2000)) for name in NAMES)
)
STEPS = st.lists(
    st.tuples(
        st.floats(0.1, 700) | st.sampled_from([0.5, 1.0, 15.0, 30.0]),
        st.sampled_from(["nothing", "crash", "restart inline", "restart the host"]),
        st.sampled_from(NAMES),
        st.none() | st.frozensets(st.sampled_from(["uptime", "restartCount"])),
    ),
    max_size=40,
)
"""Seconds that pass, what happens then and to whom, and what a look is not told; None if nobody looks."""


@settings(deadline=None, max_examples=400)
@given(
    HOSTS,
    st.sampled_from(["recon", "documented", "docs_variant"]),
    st.sampled_from(["0.12", "0.5", "0.1"]),
    STEPS,
)
def test_no_timeline_and_no_interval_counts_too_much_or_backwards(
    bundles: tuple[Bundle, ...],
    mode: Mode,
    release: Release,
    steps: list[tuple[float, str, str, frozenset[str] | None]],
) -> None:
    unit = "seconds" if mode == "documented" else "milliseconds"
    watched, clock = watch(bundles, mode, release=release, unit=unit)
    last = dict.fromkeys(NAMES, 0)
    for pause, what, name, left_out in steps:
        clock.advance(pause)
        act(watched.host, what, name)
        if left_out is not None:
            watched.host.faults.left_out = left_out
            watched.look()
            counted = watched.counted
            assert all(counted[name] >= before for name, before in last.items())
            assert all(counted[name] <= watched.really[name] for name in counted), (counted, watched.really)
            last = counted


@settings(deadline=None, max_examples=100)
@given(HOSTS, st.floats(1, 30), st.floats(0, 30), st.sampled_from(["0.12", "0.5", "0.1"]))
def test_every_interval_up_to_30_s_counts_all_that_the_host_does(
    bundles: tuple[Bundle, ...], interval: float, phase: float, release: Release
) -> None:
    watched, clock = watch(bundles, release=release, unit="milliseconds")
    clock.advance(phase)
    for _ in range(int(1500 // interval)):
        watched.look()
        clock.advance(interval)
    watched.look()
    assert watched.counted == watched.really


# --- any server at all ----------------------------------------------------------------------------------------------

SIGHTS = st.builds(
    lambda state, uptime, count: (state, uptime, count),
    st.sampled_from(STATES),
    st.none() | st.floats(0, 1e12),
    st.none() | st.integers(0, 10**9),
)
LOOKS = st.lists(
    st.tuples(
        st.floats(0, 1e6),
        st.dictionaries(st.sampled_from("abc"), st.lists(SIGHTS, max_size=3), max_size=3),
        st.booleans(),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(LOOKS, st.sampled_from([None, 1.0, 0.001]))
@example([(0.0, {}, False)], None)
def test_whatever_a_server_says_no_total_ever_falls(
    rows: list[tuple[float, dict[str, list[tuple[str, float | None, int | None]]], bool]], unit: float | None
) -> None:
    restarts, at, last = Restarts(), 0.0, dict.fromkeys("abc", 0)
    for elapsed, seen, with_host in rows:
        at += elapsed
        sights = {name: [sight(*entry, at) for entry in entries] for name, entries in seen.items()}
        restarts.observe(sights, WALL + at, unit=unit, host=Uptime(at, at) if with_host else None)
        for name, bundle in restarts.bundles.items():
            assert bundle.total >= last[name]
            assert bundle.last is None or bundle.total > 0
            last[name] = bundle.total
