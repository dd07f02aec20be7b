"""The vocabulary of all collectors: metrics as data, what a check reports, what a collector is.

A collector knows one kind of API. For every probe a new instance is made; each of its checks is one small method that
asks and fills a `CheckReport`, or raises `Failure`. Deadlines, counters and encoding are not its business.
"""

import hashlib
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from collectors.failures import Failure, Reason
from collectors.settings import TargetSettings

if TYPE_CHECKING:
    from collectors.http import Http

LABEL_LENGTH = 200
NAMED_THINGS = 1000

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One row of a metric table.

    `labels` are those written where a sample is made; `common` ones (`target`, or `collector` and `target`) stand
    before them and are filled in for the whole target. `naming` is the one label, if any, whose values are names taken
    from replies: a target may have at most 1,000 of them.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    common: tuple[str, ...] = ("target",)
    naming: str = ""

    @property
    def label_names(self) -> tuple[str, ...]:
        """All label names, the common ones first."""
        return self.common + self.labels


def gauge(name: str, text: str, *labels: str, naming: str = "") -> Metric:
    """Return the row of a gauge that every sample of carries `target` and the given labels."""
    return Metric(name, "gauge", text, labels, naming=naming)


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric; `values` belong to `metric.labels`, in their order."""

    metric: Metric
    values: tuple[str, ...]
    number: float


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks of a probe: `wall` gives Unix seconds for timestamps, `monotonic` seconds for ages."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class CheckReport:
    """What one check of one probe has found out: samples, what was observed while asking, and the verdict.

    While `done` is false the check is still being asked; what it has reported so far is valid.
    """

    __slots__ = (
        "asked_at",
        "check",
        "detail",
        "done",
        "duration",
        "names",
        "phases",
        "reason",
        "remembered",
        "samples",
        "status",
    )

    def __init__(self, check: str) -> None:
        """Begin an empty report."""
        self.check = check
        self.samples: dict[tuple[Metric, tuple[str, ...]], Sample] = {}
        self.names: dict[Metric, set[str]] = {}
        self.done = False
        self.reason: Reason | None = None
        self.detail = ""
        self.duration: float | None = None
        self.status: int | None = None
        self.phases: dict[str, float] = {}
        self.asked_at: float | None = None
        self.remembered = False

    def add(self, metric: Metric, number: float, **labels: str) -> None:
        """Add one sample; of two with one label set the later one stands.

        Raises TypeError if the labels are not exactly those of the metric, and Failure(too_large) for more than 1,000
        names in its naming label.
        """
        if len(labels) != len(metric.labels):
            raise TypeError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
        try:
            values = tuple([clean_label(labels[name]) for name in metric.labels])
        except KeyError as error:
            raise TypeError(f"{metric.name} has no label {error}") from None
        if metric.naming:
            names = self.names.setdefault(metric, set())
            name = values[metric.labels.index(metric.naming)]
            if name not in names and len(names) >= NAMED_THINGS:
                raise Failure(Reason.TOO_LARGE, f"more than {NAMED_THINGS} values of the label {metric.naming}")
            names.add(name)
        self.samples[metric, values] = Sample(metric, values, float(number))

    def absorb(self, other: "CheckReport") -> None:
        """Take over the samples of another report, such as one that was filled in a thread."""
        self.samples.update(other.samples)
        for metric, names in other.names.items():
            self.names.setdefault(metric, set()).update(names)

    def finish(self, reason: Reason | None, detail: str = "") -> None:
        """Give the verdict: None if the check passed."""
        self.done, self.reason, self.detail = True, reason, detail

    def recalled(self) -> "CheckReport":
        """Return this verdict and these samples as a remembered answer: nothing was observed this time."""
        again = CheckReport(self.check)
        again.samples = self.samples
        again.asked_at = self.asked_at
        again.remembered = True
        again.finish(self.reason, self.detail)
        return again


@dataclass(slots=True)
class SteadyTime:
    """A moment that is only known by estimates, such as a start time from an uptime: held still while they agree."""

    TOLERANCE: ClassVar[float] = 2.0

    moment: float | None = None

    def hold(self, estimate: float) -> float:
        """Return the moment: the one known, if the new estimate (Unix seconds) is within 2 s of it."""
        if self.moment is None or abs(estimate - self.moment) > self.TOLERANCE:
            self.moment = estimate
        return self.moment


_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_label(text: str) -> str:
    """Return a text fit for a label: no control character or lone surrogate, at most 200 characters and a hash."""
    if len(text) <= LABEL_LENGTH and text.isprintable():
        return text
    if len(text) > LABEL_LENGTH:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        text = f"{text[:LABEL_LENGTH]}~{digest}"
    return _UNCLEAN.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Check:
    """One check as the engine runs it.

    A success is reused while younger than `interval` seconds, a failure while younger than `retry`; 0 asks at every
    probe. `recall` is called with a success that could be reused: it returns whether that still holds (if not, it is
    asked again), or raises Failure if what has happened since has changed the verdict.
    """

    name: str
    ask: Callable[[CheckReport], Awaitable[None]]
    interval: float = 0.0
    retry: float = 0.0
    recall: Callable[[CheckReport], bool] | None = None


@dataclass(slots=True)
class Conclusion:
    """What follows from all checks of a probe together: more samples, and the checks that are left out."""

    samples: list[Sample] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)


S = TypeVar("S", bound=TargetSettings)
M = TypeVar("M")


class Collector(ABC, Generic[S, M]):
    """What is known about one kind of API, for the length of one probe of one target.

    `memory` outlives the probe: the collector's own object of type M, made by `new_memory` and kept by the engine as
    long as the target stays.
    """

    kind: ClassVar[str]
    settings_model: ClassVar[type[TargetSettings]]
    metrics: ClassVar[tuple[Metric, ...]]

    def __init__(self, settings: S, memory: M, http: "Http", clock: Clock) -> None:
        """Take what one probe needs."""
        self.settings = settings
        self.memory = memory
        self.http = http
        self.clock = clock

    @staticmethod
    @abstractmethod
    def new_memory() -> M:
        """Return the memory of a target that was never probed."""

    @abstractmethod
    def checks(self) -> tuple[Check, ...]:
        """Return the checks of this probe, one for each of `settings.check_names()`, in that order."""

    @abstractmethod
    def conclude(self, reports: Mapping[str, CheckReport]) -> Conclusion:
        """Judge the checks together. Called once for every answer given, also before all are done: no side effects."""
