"""A small evaluator of Alertmanager's inhibit_rules: which of the alerts that fire still notify."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Labels = Mapping[str, str]
_MATCHER = re.compile(r'\s*([A-Za-z_]\w*)\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Matcher:
    """One matcher; a label that is missing is an empty one, and a regular expression must match all of the value."""

    label: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Matcher":
        """Read `label="value"`, with any of the four operators; the quotes may be left out."""
        found = _MATCHER.fullmatch(text)
        if not found:
            raise ValueError(f"not a matcher: {text}")
        return cls(found[1], found[2], found[3].replace('\\"', '"').replace("\\\\", "\\"))

    def matches(self, labels: Labels) -> bool:
        """Tell whether an alert with these labels matches."""
        value = labels.get(self.label, "")
        if self.operator in ("=", "!="):
            return (value == self.value) == (self.operator == "=")
        return bool(re.fullmatch(self.value, value, re.DOTALL)) == (self.operator == "=~")


@dataclass(frozen=True, slots=True)
class InhibitRule:
    """While a source fires, targets with the same values of the labels in `equal` do not notify."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()

    @classmethod
    def parse(cls, written: Mapping[str, Any]) -> "InhibitRule":
        """Read a rule of the config."""
        return cls(
            tuple(Matcher.parse(text) for text in written["source_matchers"]),
            tuple(Matcher.parse(text) for text in written["target_matchers"]),
            tuple(written.get("equal", ())),
        )

    def hides(self, alert: Labels, firing: Iterable[Labels]) -> bool:
        """Tell whether one of the firing alerts is a source for this one.

        As in Alertmanager, an alert that matches both sides is not hidden by another one that does: neither by itself
        nor each by the other.
        """
        if not _all(self.target, alert):
            return False
        both = _all(self.source, alert)
        return any(
            _all(self.source, source)
            and all(source.get(label, "") == alert.get(label, "") for label in self.equal)
            and not (both and _all(self.target, source))
            for source in firing
        )


def _all(matchers: Iterable[Matcher], labels: Labels) -> bool:
    return all(matcher.matches(labels) for matcher in matchers)


def notifying(rules: Iterable[InhibitRule], firing: Sequence[Labels]) -> list[Labels]:
    """Return the alerts that still notify. A hidden alert goes on hiding others, as in Alertmanager."""
    rules = tuple(rules)
    return [alert for alert in firing if not any(rule.hides(alert, firing) for rule in rules)]
