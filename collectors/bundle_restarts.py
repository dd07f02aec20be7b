"""The restarts of MCP bundles, counted from what their host shows of them now and then.

A look shows states, restart counts and uptimes. A count says how often the host has tried in a row; an uptime shows
every start, also one the host does not count. What was measured of both: docs/bundles.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from collectors.base import NAMED_THINGS, SteadyTime

UP = frozenset({"running", "healthy"})
GIVEN_UP = frozenset({"cooldown", "dead", "stopped"})
"""States in which the host has no restart under way."""
TOLERANCE = 2.0
"""Seconds by which a start time may seem to move: uptimes come in whole seconds, and answers take their time."""
UNITS = {"seconds": 1.0, "milliseconds": 0.001}
LEAST_BETWEEN = 0.5
"""Seconds; two looks that lie closer tell nothing of the unit, since answers take their time."""


@dataclass(frozen=True, slots=True)
class Uptime:
    """An uptime as reported, in whatever unit, and when: by the monotonic clock, to within `doubt` seconds."""

    reported: float
    at: float
    doubt: float = 0.0

    def moved(self, before: "Uptime", unit: float) -> bool:
        """Return whether the start it tells of is another than that of an earlier look: more than 2 s later."""
        elapsed = self.at - before.at
        return elapsed - (self.reported - before.reported) * unit > self._tolerance(before)

    def began_since(self, before: "Uptime", unit: float) -> bool:
        """Return whether the start may lie between the earlier look and this one."""
        return self.reported * unit <= self.at - before.at + self._tolerance(before)

    def _tolerance(self, before: "Uptime") -> float:
        return TOLERANCE + self.doubt + before.doubt


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look shows of one instance; uptime and count are None if not given."""

    state: str
    uptime: Uptime | None = None
    count: int | None = None


class Instance:
    """The restarts of one instance, from one look to the next."""

    __slots__ = ("_ahead", "_start_due", "count", "start", "uptime")

    def __init__(self, sight: Sight) -> None:
        """Begin with the first look, which counts nothing."""
        self.count = sight.count
        self.uptime = sight.uptime
        self.start = SteadyTime()
        # Of a restart that is counted, or lies before the first look, the start may be yet to come.
        self._start_due = sight.state not in UP | GIVEN_UP
        # Restarts counted by their start while no count was given, which a count will show again.
        self._ahead = 0

    def observe(self, sight: Sight, unit: float | None, *, host_restarted: bool) -> int:
        """Return how many restarts this look shows for the first time.

        The host raises the count, waits up to 16 s, then starts the bundle: the start time that jumps after a rise
        belongs to a restart that is counted. While the state is up after a rise, the jump has been seen with it.
        """
        moved = has_moved(self, sight, unit)
        rise = self._rise(sight.count)
        jumped = moved and not rise and not self._start_due and not host_restarted
        settled = sight.state in GIVEN_UP or (sight.state in UP and sight.count == 0)
        if host_restarted:
            self._start_due = sight.state not in UP | GIVEN_UP
        elif rise:
            self._start_due = not (moved and sight.state in UP)
        elif moved or (settled and sight.uptime is not None):
            self._start_due = False
        if sight.uptime is not None or host_restarted:
            self.uptime = sight.uptime
        if sight.count is None:
            self._ahead += jumped
            return int(jumped)
        known, self._ahead = min(self._ahead, rise), 0
        return rise - known + jumped

    def _rise(self, count: int | None) -> int:
        """Return by how much the count rose; one that fell has been at 0, and risen from there."""
        before, self.count = self.count, self.count if count is None else count
        if before is None or count is None or count == before:
            return 0
        return count - before if count > before else count


def has_moved(instance: Instance, sight: Sight, unit: float | None) -> bool:
    """Return whether a look shows another start than the last one that showed any."""
    if unit is None or sight.uptime is None or instance.uptime is None:
        return False
    return sight.uptime.moved(instance.uptime, unit)


@dataclass(slots=True)
class BundleRestarts:
    """All restarts seen of one bundle, and when the last one was seen (Unix seconds)."""

    total: int = 0
    last: float | None = None
    instances: list[Instance] = field(default_factory=list)

    @property
    def latest_start(self) -> float | None:
        """When the instance that started last did so (Unix seconds); None while one of them is not known."""
        moments = [instance.start.moment for instance in self.instances]
        known = [moment for moment in moments if moment is not None]
        return max(known) if known and len(known) == len(moments) else None


class Restarts:
    """The restarts of all bundles of a host, counted from looks at states, restart counts and uptimes.

    A count that rises counts the difference; one that fell to n > 0 counts n, since it has been at 0; a start time that
    jumps forward without a rise counts one. What a look shows for the first time counts nothing, nor does a start that
    moved because the whole host restarted. The total never falls, and is never above what really happened; it is
    below where more happened between two looks than they show.
    """

    def __init__(self) -> None:
        """Begin with nothing seen and the unit of uptimes unknown."""
        self.unit: float | None = None
        self.bundles: dict[str, BundleRestarts] = {}
        self._host: Uptime | None = None

    def observe(
        self,
        seen: Mapping[str, Sequence[Sight]],
        now: float,
        *,
        unit: float | None = None,
        host: Uptime | None = None,
    ) -> None:
        """Take one look, made at `now` (Unix seconds): the instances of each bundle, in their order.

        `unit` is the length in seconds of a unit of uptimes, None to find it out; `host` the uptime of the host itself,
        in seconds.
        """
        known = self._matched(seen)
        unit = unit or _unit_by_growth(known) or self.unit
        if self.unit not in {None, unit}:
            known = []  # what was seen in another unit cannot be compared
            self._forget(self.bundles)
        self.unit = unit
        host_restarted = self._host_restarted(known, host)
        self._host = host
        for name, sights in seen.items():
            self._count(self.bundles.setdefault(name, BundleRestarts()), sights, now, host_restarted=host_restarted)
        # The host lists what it booted with: a bundle that is gone and comes back comes from another boot.
        absent = [name for name in self.bundles if name not in seen]
        self._forget(absent)
        for name in absent[:-NAMED_THINGS]:
            del self.bundles[name]

    def _matched(self, seen: Mapping[str, Sequence[Sight]]) -> list[tuple[Instance, Sight]]:
        """Return the instances that can be told apart by their order, since their number is what it was."""
        return [
            pair
            for name, sights in seen.items()
            if name in self.bundles and len(self.bundles[name].instances) == len(sights)
            for pair in zip(self.bundles[name].instances, sights, strict=True)
        ]

    def _host_restarted(self, known: Sequence[tuple[Instance, Sight]], host: Uptime | None) -> bool:
        """Return whether the host did, by its own uptime or else by those of all its bundles."""
        if host is not None and self._host is not None:
            return host.moved(self._host, UNITS["seconds"])
        unit = self.unit
        if unit is None:
            return False
        uptimes = [(now.uptime, last.uptime) for last, now in known if now.uptime and last.uptime]
        return all(now.began_since(last, unit) for now, last in uptimes) and any(
            has_moved(last, now, unit) for last, now in known
        )

    def _count(self, bundle: BundleRestarts, sights: Sequence[Sight], now: float, *, host_restarted: bool) -> None:
        if len(bundle.instances) == len(sights):
            restarts = sum(
                instance.observe(sight, self.unit, host_restarted=host_restarted)
                for instance, sight in zip(bundle.instances, sights, strict=True)
            )
            if restarts:
                bundle.total += restarts
                bundle.last = now
        else:
            bundle.instances = [Instance(sight) for sight in sights]
        for instance, sight in zip(bundle.instances, sights, strict=True):
            if sight.uptime is None:
                instance.start.moment = None
            elif self.unit is not None:
                instance.start.hold(now - sight.uptime.reported * self.unit)

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.bundles[name].instances = []


def _unit_by_growth(known: Iterable[tuple[Instance, Sight]]) -> float | None:
    """Return the unit by which uptimes have grown as fast as time, if any has; a growing uptime is never too fast."""
    found = set()
    for last, now in known:
        if now.uptime is None or last.uptime is None:
            continue
        elapsed, growth = now.uptime.at - last.uptime.at, now.uptime.reported - last.uptime.reported
        for unit in UNITS.values():
            if elapsed >= LEAST_BETWEEN and elapsed / 2 <= growth * unit <= elapsed * 2:
                found.add(unit)
    return min(found, default=None)
