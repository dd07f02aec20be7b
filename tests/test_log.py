"""Log lines: one a record, whatever stands in it."""

import json
import logging
import re
import sys

import pytest

from health_exporter.log import LEVELS, Formatter, as_json, logfmt, set_up


def record(message: str = "it happens", level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelno": level, "levelname": logging.getLevelName(level)})
    made.created = 1_800_000_000.0625
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def failed_record() -> logging.LogRecord:
    made = record("it fails", logging.ERROR)
    try:
        int("two\nlines")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("a-b_c/d:e", "a-b_c/d:e"),
        (3, "3"),
        (0.5, "0.5"),
        (True, "True"),
        (None, "None"),
        ("two words", '"two words"'),
        ('say "hi"', r'"say \"hi\""'),
        ("a=b", '"a=b"'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nline", r'"line\nline"'),
        ("\r\t\x00\x1b", r'"\r\t\u0000\u001b"'),
        ("\u2028", r'"\u2028"'),
        ("naïve", r'"na\u00efve"'),
        ("🎉", r'"\ud83c\udf89"'),
        ("\ud800", r'"\ud800"'),
    ],
)
def test_logfmt_quotes_what_would_not_stand_by_itself(value: object, written: str) -> None:
    assert logfmt({"a": value, "b": 1}) == f"a={written} b=1"


def test_logfmt_quotes_an_empty_value() -> None:
    assert logfmt({"a": ""}) == 'a=""'


def test_a_line_begins_with_time_level_and_message_then_the_fields_in_order() -> None:
    line = Formatter(logfmt).format(record(target="pryv-eu", check="hfs"))
    assert line == 'ts=2027-01-15T08:00:00.062Z level=info msg="it happens" target=pryv-eu check=hfs'


def test_an_empty_field_is_left_out() -> None:
    assert "detail" not in Formatter(logfmt).format(record(detail=""))


def test_arguments_are_put_into_the_message() -> None:
    made = record("%s of %d")
    made.args = ("one", 2)
    assert 'msg="one of 2"' in Formatter(logfmt).format(made)


@pytest.mark.parametrize(
    ("level", "written"),
    [
        (logging.DEBUG, "debug"),
        (logging.INFO, "info"),
        (logging.WARNING, "warn"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "error"),
    ],
)
def test_levels_are_written_as_prometheus_writes_them(level: int, written: str) -> None:
    assert f" level={written} " in Formatter(logfmt).format(record(level=level))
    assert json.loads(Formatter(as_json).format(record(level=level)))["level"] == written


def test_json_has_the_fields_of_logfmt_as_one_object() -> None:
    line = Formatter(as_json).format(record(target="pryv-eu", seconds=0.5, odd=ValueError("x"), text="a\nb 🎉"))
    assert "\n" not in line
    assert json.loads(line) == {
        "ts": "2027-01-15T08:00:00.062Z",
        "level": "info",
        "msg": "it happens",
        "target": "pryv-eu",
        "seconds": 0.5,
        "odd": "x",
        "text": "a\nb 🎉",
    }


@pytest.mark.parametrize("write", [logfmt, as_json])
def test_an_exception_is_one_field_of_the_same_line(write: object) -> None:
    line = Formatter(write).format(failed_record())  # type: ignore[arg-type]
    assert "\n" not in line
    text = json.loads(line)["exception"] if write is as_json else json.loads(line.partition("exception=")[2])
    assert text.startswith("Traceback (most recent call last):\n")
    assert "ValueError: invalid literal for int() with base 10: 'two\\nlines'" in text


@pytest.mark.parametrize("at", range(len(LEVELS)))
def test_only_the_level_and_above_is_written(
    at: int, root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(LEVELS[at], "logfmt")
    for level in LEVELS:
        getattr(logging.getLogger("health_exporter.test"), {"warn": "warning"}.get(level, level))(level)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.findall(r" level=(\w+) ", err) == list(LEVELS[at:])


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_newline_in_a_value_never_begins_a_line(
    form: str, root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up("info", form)
    logging.getLogger("health_exporter.test").warning("a\nlevel=error msg=forged", extra={"detail": "b\r\nts=1"})
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_broken_requests_of_clients_are_not_logged(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up("debug", "logfmt")
    logging.getLogger("aiohttp.server").error("Error handling request")
    assert capsys.readouterr().err == ""
