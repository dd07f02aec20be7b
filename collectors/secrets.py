"""Secrets: text that never shows, and secret files that are read again when they change."""

import os
import re
from collections.abc import Callable
from pathlib import Path

_REFERENCE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

MASK = "<secret>"


class Secret:
    """A secret text, literal or from a file. Its repr and str are a mask.

    A secret of a file keeps its last good value when the file can no longer be read.
    """

    __slots__ = ("_check", "_seen", "_value", "path", "version")

    def __init__(self, value: str, path: Path | None = None) -> None:
        """Keep a checked value; use `literal` or `from_file` for one that still has to be checked."""
        self._value = value
        self.path = path
        self.version = 0
        self._check: Callable[[str], object] | None = None
        self._seen: tuple[int, int, int] | None = None

    @classmethod
    def from_file(cls, path: Path) -> "Secret":
        """Read a secret file. Raises ValueError, with words for the operator, if it holds no usable secret."""
        secret = cls("", path)
        if fault := secret.refresh():
            raise ValueError(fault)
        secret.version = 0
        return secret

    @classmethod
    def literal(cls, text: str) -> "Secret":
        """Take a text of the config: `${NAME}` is the environment's, `$$` a dollar. Raises ValueError."""

        def value_of(match: re.Match[str]) -> str:
            if match[1] is None:
                return "$"
            value = os.environ.get(match[1], "")
            if not value:
                raise ValueError(f"environment variable {match[1]} is not set or empty")
            return value

        return cls(_checked(_REFERENCE.sub(value_of, text)))

    def require(self, check: Callable[[str], object]) -> "Secret":
        """Hold this value and every later one to a check that raises ValueError, without the value in its words."""
        check(self._value)
        self._check = check
        return self

    def get(self) -> str:
        """Return the secret itself."""
        return self._value

    def refresh(self) -> str | None:
        """Read the file again if it has changed; return what is wrong with it, or None.

        `version` rises when the value changes. While something is wrong the last good value stays.
        """
        if self.path is None:
            return None
        try:
            seen = _signature(self.path)
            if seen == self._seen:
                return None
            value = _read(self.path)
            if self._check is not None:
                self._check(value)
        except (OSError, ValueError) as error:
            self._seen = None
            return str(error) if isinstance(error, ValueError) else _words(self.path, error)
        self._seen = seen
        if value != self._value:
            self._value = value
            self.version += 1
        return None

    def __repr__(self) -> str:
        """Return the mask."""
        return MASK

    def __eq__(self, other: object) -> bool:
        """Compare the values and where they come from."""
        return isinstance(other, Secret) and (self._value, self.path) == (other._value, other.path)

    def __hash__(self) -> int:
        """Hash where it comes from; the value may change."""
        return hash(self.path)


def _signature(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(_words(path, error)) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"secret file {path} is not UTF-8 text") from error
    try:
        return _checked(text.strip())
    except ValueError as error:
        raise ValueError(f"secret file {path}: {error}") from error


def _words(path: Path, error: OSError) -> str:
    return f"cannot read secret file {path}: {error.strerror or type(error).__name__}"


def _checked(value: str) -> str:
    if not value.strip():
        raise ValueError("the secret is empty")
    if _CONTROL.search(value):
        raise ValueError("the secret has a line break or another control character")
    return value
