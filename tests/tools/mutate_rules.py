"""Rules with one thing wrong each, and which of them the unit tests let pass: `python -m tests.tools.mutate_rules`."""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

from tests.alerts.cases import ABSENT, BUDGET_TESTS, CASES, ENDINGS, OTHERS
from tests.alerts.rules import EVALUATION, Rule, UnitTest, alerts, file_of, run, seconds

NEGATED = {"==": "!=", ">=": "<", ">": "<=", "<": ">="}
SET = {"and": "unless", "unless": "and", "or": "unless"}


def mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Yield copies of a rule, each with one thing changed, and what it is."""
    for key in ("for", "keep_firing_for"):
        if key in rule.written:
            for factor in (0.5, 2):
                changed = f"{int(seconds(str(rule.written[key])) * factor)}s"
                yield f"{key}: {changed}", _with(rule, {key: changed})
    for what, expr in _expressions(rule.expr):
        yield what, _with(rule, {"expr": expr})


def _with(rule: Rule, changed: dict[str, Any]) -> Rule:
    return Rule(rule.file, rule.group, dict(rule.written) | changed)


def _expressions(expr: str) -> Iterator[tuple[str, str]]:  # noqa: C901, PLR0912
    def spliced(begin: int, end: int, text: str) -> tuple[str, str]:
        line = expr.count("\n", 0, begin) + 1
        return f"line {line}: {expr[begin:end].strip()!r} -> {text.strip()!r}", expr[:begin] + text + expr[end:]

    braces = [found.span() for found in re.finditer(r"{[^}]*}", expr)]

    def in_braces(position: int) -> bool:
        return any(begin <= position < end for begin, end in braces)

    for found in re.finditer(r"==|>=|<(?!=)|>(?!=)", expr):
        if not in_braces(found.start()):
            yield spliced(*found.span(), NEGATED[found[0]])
    for found in re.finditer(r"\b(and|unless|or)\b", expr):
        if not in_braces(found.start()):
            yield spliced(*found.span(), SET[found[0]])
    for found in re.finditer(r"without \(([^)]+)\)", expr):
        for label in re.finditer(r"\w+", found[1]):
            rest = [name for name in re.findall(r"\w+", found[1]) if name != label[0]]
            yield spliced(*found.span(1), ", ".join(rest))
    for found in re.finditer(r'(\w+)(=~|!~|=|!=)"([^"]*)"(,\s*)?', expr):
        if not in_braces(found.start()):
            continue
        yield spliced(*found.span(), "")
        if "|" in found[3]:
            for one in found[3].split("|"):
                yield spliced(*found.span(3), "|".join(other for other in found[3].split("|") if other != one))
    for found in re.finditer(r"(?<![\w.\[:])(\d+(?:\.\d+)?)(?![\w.:])", expr):
        if found[1] not in ("0", "1") and not in_braces(found.start()):
            for factor in (0.5, 2):
                yield spliced(*found.span(1), f"{float(found[1]) * factor:g}")
    for found in re.finditer(r"(?<=\[)\d+[smhd](?=\])|(?<=offset )\d+[smhd]", expr):
        for factor in (0.5, 2):
            yield spliced(*found.span(), f"{int(seconds(found[0]) * factor)}s")


def tests_of(rule: Rule) -> dict[int, list[UnitTest]]:
    """Return the unit tests of an alert by the interval their rules are evaluated at."""
    found = {EVALUATION: [test for case in CASES if case.key == rule.key for test in case.unit_tests()]}
    if rule.name == "HealthExporterAbsent":
        found[EVALUATION] += ABSENT
    found[EVALUATION] += [test for key, test in (*ENDINGS, *OTHERS) if key == rule.key]
    for key, scrape, test in BUDGET_TESTS:
        if key == rule.key[:2]:
            found.setdefault(scrape, []).append(test)
    return {evaluation: tests for evaluation, tests in found.items() if tests}


def verdict(rule: Rule, tests: dict[int, list[UnitTest]]) -> str:
    """Return what promtool has to say about a rule; it stops at the first interval with something to say."""
    directory = Path(tempfile.mkdtemp(prefix="rules"))
    try:
        for evaluation, cases in sorted(tests.items(), reverse=True):
            if said := run(directory, {"rules.yml": file_of(rule)}, cases, evaluation):
                return said
        return ""
    finally:
        shutil.rmtree(directory)


def survivors(*names: str) -> tuple[int, list[tuple[tuple[str, ...], str]]]:
    """Return how many mutants there are, and those that no unit test sees."""
    chosen = [rule for rule in alerts() if not names or rule.name in names]
    tests = {rule.key: tests_of(rule) for rule in chosen}
    every = [(rule.key, what, mutant) for rule in chosen for what, mutant in mutants(rule)]
    with ThreadPoolExecutor(cpu_count()) as pool:
        said = pool.map(lambda one: verdict(one[2], tests[one[0]]), every)
        return len(every), [(key, what) for (key, what, _), red in zip(every, said, strict=True) if not red]


if __name__ == "__main__":
    total, left = survivors(*sys.argv[1:])
    for key, what in left:
        print(*key, what, sep=" | ")  # noqa: T201
    print(f"{total} mutants, {len(left)} survive")  # noqa: T201
