"""Logs as logfmt or JSON, one line a record: time, level, message, then whatever `extra` the record carries."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

LEVELS = ("debug", "info", "warn", "error")
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(level: str, form: str) -> None:
    """Send all logs of `level` and above to stderr, as `logfmt` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(logfmt if form == "logfmt" else as_json))
    logging.basicConfig(handlers=[handler], level={"warn": "WARNING"}.get(level, level.upper()), force=True)
    # A broken request is the client's affair; asyncio's own words about a loop that is slow are not.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


class Formatter(logging.Formatter):
    """Writes a record's fields with one of the two styles."""

    def __init__(self, write: Callable[[dict[str, Any]], str]) -> None:
        """Write with `logfmt` or `as_json`."""
        super().__init__()
        self._write = write

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level = record.levelname.lower()
        fields: dict[str, Any] = {
            "ts": time.replace("+00:00", "Z"),
            "level": {"warning": "warn", "critical": "error"}.get(level, level),
            "msg": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD and value != ""}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self._write(fields)


def logfmt(fields: dict[str, Any]) -> str:
    """Return fields as `name=value`, quoted where it must be."""
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())


def as_json(fields: dict[str, Any]) -> str:
    """Return fields as a JSON object."""
    return json.dumps(fields, default=str)


def _quoted(text: str) -> str:
    if text and text.isascii() and text.isprintable() and not set(text) & set(' ="\\'):
        return text
    return json.dumps(text)
