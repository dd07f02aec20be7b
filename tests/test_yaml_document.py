"""What is read from YAML text, where it stands, and what is refused."""

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from health_exporter.yaml_document import Document, Problem, parse, path_text, position_at


def read(text: str) -> Any:
    problems: list[Problem] = []
    document = parse(text, problems)
    assert not problems
    assert document is not None
    return document.data


def problems_of(text: str) -> list[str]:
    problems: list[Problem] = []
    parse(text, problems)
    return [problem.render("f") for problem in problems]


def document_of(text: str) -> Document:
    document = parse(text, [])
    assert document is not None
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"),
        ("08", "08"),
        ("010.5", "010.5"),
        ("0o17", 15),
        ("0x1F", 31),
        ("-12", -12),
        ("+3", 3),
        ("0", 0),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("0b11", "0b11"),
        ("9" * 101, "9" * 101),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1.5e-1", 0.15),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("=", "="),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("!!bool 'true'", True),
        ("!!null ''", None),
        ("|\n a\n b\n", "a\nb\n"),
        ('"\\U0001F600"', "\U0001f600"),
    ],
)
def test_a_scalar_is_read_as_in_yaml_1_2(text: str, value: object) -> None:
    data = read(f"key: {text}")["key"]
    assert (data, type(data)) == (value, type(value))


def test_nan_is_a_number() -> None:
    assert math.isnan(read(".nan"))


def test_a_key_that_yaml_1_1_takes_for_a_boolean_is_a_text() -> None:
    assert read("on: 1\nno: 2\n") == {"on": 1, "no": 2}


def test_an_empty_text_is_null() -> None:
    assert read("") is None
    assert read("# only a comment\n") is None


def test_a_value_left_empty_is_null() -> None:
    assert read("a: {b: , c:}\nd:\ne: {f: &x }\ng: *x\n") == {
        "a": {"b": None, "c": None},
        "d": None,
        "e": {"f": None},
        "g": None,
    }


def test_an_alias_repeats_its_anchor() -> None:
    assert read("a: &x {b: [1]}\nc: *x\n") == {"a": {"b": [1]}, "c": {"b": [1]}}


BOMB = "\n".join(
    [f"a0: &a0 [{', '.join('x' * 9)}]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: a: duplicate key, first on line 1"),
        ("l:\n- {x: 1, x: 2}\n", "f:2:10: l[0].x: duplicate key, first on line 2"),
        ("m: {<<: {a: 1}}", 'f:1:5: m["<<"]: merge keys are not supported: write the keys out, or use defaults'),
        ("1: a", "f:1:1: a key must be a text: put it in quotes"),
        ("m:\n  true: a", "f:2:3: m: a key must be a text: put it in quotes"),
        ("{a: b,c}", "f:1:7: a key without value: a text with a comma needs quotes here"),
        ("a:\n ? b\n", "f:2:4: a: a key without value: a text with a comma needs quotes here"),
        ("? [a]\n: b", "f:1:3: a key must be a text: put it in quotes"),
        ("? !x a\n: b", "f:1:3: a key must be a text: put it in quotes"),
        ('"\\ud800": b', "f:1:1: a key has half of a surrogate pair"),
        ('a: "\\ud800"', "f:1:4: a: half of a surrogate pair: write \\U and eight digits"),
        ("a: !secret b", "f:1:4: a: a tag has no meaning here: a text that begins with ! needs quotes"),
        ("a: !!set {b}", "f:1:4: a: a tag has no meaning here: a text that begins with ! needs quotes"),
        ("a: !!map [b]", "f:1:4: a: a tag has no meaning here: a text that begins with ! needs quotes"),
        ("a: !!timestamp zz", "f:1:4: a: a tag has no meaning here: a text that begins with ! needs quotes"),
        ("a: !!int abc", "f:1:4: a: the tag says int, the value does not"),
        ("a: !!int '010'", "f:1:4: a: the tag says int, the value does not"),
        ('a: !!int ""', "f:1:4: a: the tag says int, the value does not"),
        ("a: !!bool yes", "f:1:4: a: the tag says bool, the value does not"),
        ("a: 1\n---\nb: 2\n", "f:2:1: a second document begins here: the file may have only one"),
        ("a: *nowhere", "f:1:4: an alias without anchor: a text that begins with * needs quotes"),
        ("a: !h!x y", "f:1:4: an unknown tag: a text that begins with ! needs quotes"),
        ('a: "\\q"', "f:1:6: an unknown escape: \\ in double quotes has to be written \\\\"),
        ('a: "\\UFFFFFFFF"', "f:1:7: not valid YAML: a number here is out of range"),
        ('a: "\\U00110000"', "f:1:7: not valid YAML: a number here is out of range"),
        ("a: b: c", 'f:1:5: no "key: value" can stand here: mend the indentation, or quote the text'),
        ("a: 'b", "f:1:6: not valid YAML: found unexpected end of stream"),
        ("a: [b\n", "f:2:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("\ta: b", "f:1:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: b\nc: \x00", "f:2:4: the character U+0000 is not allowed"),
        ("&a [*a]", "f:1:1: [0]: an alias stands inside of what it repeats"),
        ("&a [*a,*a]", "f:1:1: [0]: an alias stands inside of what it repeats"),
        ("a: &x {b: *x}", "f:1:4: a.b: an alias stands inside of what it repeats"),
        ("[" * 3000, "f:1:51: nested more than 50 deep"),
        ("- " * 60 + "a", "f:1:101: nested more than 50 deep"),
        (
            "a: &a !x 1\nb: [*a, *a]\n",
            "f:1:4: a: a tag has no meaning here: a text that begins with ! needs quotes",
        ),
    ],
)
def test_a_fault_is_listed_with_its_position(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_aliases_of_aliases_end_soon() -> None:
    (problem,) = problems_of(BOMB)
    assert problem.endswith("aliases make the document too large")


def test_all_faults_that_leave_the_document_readable_are_listed() -> None:
    assert len(problems_of("a: 1\na: 2\nb: !x 1\n3: c\nd: {<<: 1}\n")) == 4


def test_what_has_no_meaning_is_known_to_be_unusable() -> None:
    assert document_of("a: {b: [0, !x 1]}").unusable == {("a", "b", 1)}


TEXT = "# comment\ntargets:\n  - name: a\n    labels: {x: &x y}\n  - name: *x\n"


@pytest.mark.parametrize(
    ("path", "key", "position"),
    [
        ((), False, (2, 1)),
        (("targets",), False, (3, 3)),
        (("targets",), True, (2, 1)),
        (("targets", 0), False, (3, 5)),
        (("targets", 0), True, (3, 5)),
        (("targets", 0, "name"), False, (3, 11)),
        (("targets", 0, "name"), True, (3, 5)),
        (("targets", 0, "labels", "x"), True, (4, 14)),
        (("targets", 0, "labels", "x"), False, (4, 17)),
        (("targets", 0, "labels", "none"), True, (4, 13)),
        (("targets", 0, "none", "none"), False, (3, 5)),
        (("targets", 7), False, (3, 3)),
        (("none",), False, (2, 1)),
        (("targets", 1, "name"), True, (5, 5)),
    ],
)
def test_a_part_is_found_where_it_stands_or_where_it_is_missing(
    path: tuple[str | int, ...], key: bool, position: tuple[int, int]
) -> None:
    assert document_of(TEXT).where(path, key=key) == position


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("targets", 0, "tls_config", "ca_file"), "targets[0].tls_config.ca_file"),
        (("headers", "X-A", "a b", "line\nbreak"), 'headers.X-A["a b"]["line\\nbreak"]'),
    ],
)
def test_a_path_is_written_as_an_operator_would(path: tuple[str | int, ...], text: str) -> None:
    assert path_text(path) == text


def test_a_problem_is_one_line_whatever_stands_in_it() -> None:
    assert Problem(1, 2, "a", "b\nc\x1b").render("f\r") == "f\ufffd:1:2: a: b\ufffdc\ufffd"


@pytest.mark.parametrize(("index", "position"), [(0, (1, 1)), (1, (1, 2)), (3, (2, 1)), (4, (3, 1)), (5, (4, 1))])
def test_lines_end_as_yaml_has_it(index: int, position: tuple[int, int]) -> None:
    assert position_at("a\r\n\n\u2028b", index) == position


YAML_TEXT = st.text(alphabet=st.sampled_from("ab:- \n[]{},&*!|>'\"%#?\\01.~\t<=@`\r\x85\ufeff\x00xuU"), max_size=60)


@settings(max_examples=600, deadline=None)
@given(YAML_TEXT | st.text())
@example("%YAML 1." + "1" * 5000 + "\n--- a")
@example("!%FF a")
@example("a: !<%F0%9F> b")
@example("? ? ? a")
@example("- &a\n- *a\n- &a b")
def test_any_text_ends_in_data_or_in_problems_inside_of_it(text: str) -> None:
    problems: list[Problem] = []
    document = parse(text, problems)
    assert document is not None or problems
    last = position_at(text, len(text))
    assert all((1, 1) <= (problem.line, problem.column) <= last for problem in problems)
    assert all(problem.render("f").isprintable() for problem in problems)
