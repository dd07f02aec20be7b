"""YAML text as plain data, with the position of every key and value, and with every fault listed.

Scalars are read as in YAML 1.2: `on`, `yes`, `12:30` and dates are texts, and so is `010`, which the versions of YAML
read as two different numbers.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path: TypeAlias = tuple[str | int, ...]
Position: TypeAlias = tuple[int, int]

MOST_DEPTH = 50
MOST_REPEATED = 100_000

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})|0o[0-7]{1,99}|0x[0-9a-fA-F]{1,99}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")
_LINE_END = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a config file, and where: line and column count from 1."""

    line: int
    column: int
    path: str
    message: str

    def render(self, file: object) -> str:
        """Return the line for the operator: FILE:LINE:COL: PATH: message."""
        return _one_line(f"{file}:{self.line}:{self.column}: {self.path}{': ' if self.path else ''}{self.message}")


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def path_text(path: Path) -> str:
    """Return a path as it is written: targets[0].labels.team."""
    text = ""
    for step in path:
        if isinstance(step, str) and re.fullmatch(r"[\w-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step)}]"
    return text


class Document:
    """The data of a YAML text, and where each part of it stands.

    `unusable` are the paths of values that are replaced by None since they have no meaning here; a problem was listed
    for each.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.data: Any = None
        self.unusable: set[Path] = set()
        self._values: dict[Path, Position] = {(): (1, 1)}
        self._keys: dict[Path, Position] = {}

    def where(self, path: Path, *, key: bool = False) -> Position:
        """Return line and column of the value (or its key) at the path; of the nearest part around it if it is none."""
        while key or path not in self._values:
            if key and path in self._keys:
                return self._keys[path]
            key, path = False, path if path in self._values else path[:-1]
        return self._values[path]

    def put(self, path: Path, value: Position, key: Position | None = None) -> None:
        """Note where a value and its key stand."""
        self._values[path] = value
        if key is not None:
            self._keys[path] = key


class _Stop(Exception):
    """Ends the reading at a fault after which nothing can be said."""

    def __init__(self, position: Position, path: Path, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(*position, path_text(path), message)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; constructs nothing."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    depth = 0
    composed = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        self.composed += 1
        if self.depth > MOST_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _Stop(_position(mark), (), f"nested more than {MOST_DEPTH} deep")
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, _pattern, _first in (
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("bool", _BOOL, "tTfF"),
    ("null", _NULL, ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern.pattern})\\Z"), list(_first))


def parse(text: str, problems: list[Problem]) -> Document | None:
    """Read a YAML text and add what is wrong with it to the problems. Returns None if it cannot be read at all."""
    try:
        root, composed = _compose(text)
        return _Reader(text, problems, composed).read(root)
    except _Stop as stop:
        problems.append(stop.problem)
        return None


def position_at(text: str, index: int) -> Position:
    """Return line and column of the character at an index."""
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
    line = bisect_right(starts, index)
    return line, index - starts[line - 1] + 1


def _compose(text: str) -> tuple[Node | None, int]:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        message = f"the character U+{error.character:04X} is not allowed"
        raise _Stop(position_at(text, error.position), (), message) from None
    try:
        return loader.get_single_node(), loader.composed
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or loader.get_mark()
        raise _Stop(_position(mark), (), _words(error.problem or error.context or "not valid YAML")) from None
    except (ValueError, OverflowError):
        raise _Stop(_position(loader.get_mark()), (), "not valid YAML: a number here is out of range") from None
    finally:
        loader.dispose()


_WORDS = {
    "but found another document": "a second document begins here: the file may have only one",
    "found undefined alias": "an alias without anchor: a text that begins with * needs quotes",
    "found duplicate anchor": "an anchor given twice",
    "found undefined tag handle": "an unknown tag: a text that begins with ! needs quotes",
    "found unknown escape character": "an unknown escape: \\ in double quotes has to be written \\\\",
    "mapping values are not allowed here": 'no "key: value" can stand here: mend the indentation, or quote the text',
}


def _words(problem: str) -> str:
    for beginning, words in _WORDS.items():
        if problem.startswith(beginning):
            return words
    return f"not valid YAML: {problem}"


def _position(mark: yaml.Mark) -> Position:
    return mark.line + 1, mark.column + 1


class _Reader:
    """Walks the nodes of one document."""

    def __init__(self, text: str, problems: list[Problem], composed: int) -> None:
        self.text = text
        self.document = Document()
        self.problems = problems
        self.budget = composed + MOST_REPEATED
        self.open: set[int] = set()
        self.seen: set[int] = set()

    def read(self, root: Node | None) -> Document:
        """Return the document below a node."""
        if root is not None:
            self.document.data = self._value((), root, None)
        return self.document

    def _value(self, path: Path, node: Node, key: Position | None) -> Any:
        self.document.put(path, _position(node.start_mark), key)
        self.budget -= 1
        if self.budget < 0:
            raise _Stop(_position(node.start_mark), path, "aliases make the document too large")
        if id(node) in self.open:
            raise _Stop(_position(node.start_mark), path, "an alias stands inside of what it repeats")
        again = id(node) in self.seen
        self.seen.add(id(node))
        self.open.add(id(node))
        listed = len(self.problems)
        value = self._read(path, node)
        self.open.discard(id(node))
        if again:
            del self.problems[listed:]
        return value

    def _read(self, path: Path, node: Node) -> Any:
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return dict(self._items(path, node))
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._value((*path, index), item, None) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            try:
                return _scalar(node.tag.removeprefix(_TAG), node.value)
            except ValueError as error:
                return self._unusable(path, node, str(error))
        return self._unusable(path, node, "a tag has no meaning here: a text that begins with ! needs quotes")

    def _unusable(self, path: Path, node: Node, message: str) -> None:
        self._wrong(node, path, message)
        self.document.unusable.add(path)

    def _items(self, path: Path, node: MappingNode) -> Iterator[tuple[str, Any]]:
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or key_node.tag != f"{_TAG}str":
                self._wrong(key_node, path, "a key must be a text: put it in quotes")
                continue
            key = key_node.value
            inner = (*path, key)
            if self._is_bare(key_node.end_mark, value_node):
                # Not named: in {password: ab,cd} the key is half of a secret.
                self._wrong(key_node, path, "a key without value: a text with a comma needs quotes here")
            elif _SURROGATE.search(key):
                self._wrong(key_node, path, "a key has half of a surrogate pair")
            elif key == "<<":
                self._wrong(key_node, inner, "merge keys are not supported: write the keys out, or use defaults")
            elif key in lines:
                self._wrong(key_node, inner, f"duplicate key, first on line {lines[key]}")
            else:
                lines[key] = key_node.start_mark.line + 1
                yield key, self._value(inner, value_node, _position(key_node.start_mark))

    def _is_bare(self, key_end: yaml.Mark, value: Node) -> bool:
        """Return whether a key has no colon; an aliased value stands before its key."""
        begin, end = value.start_mark.index, value.end_mark.index
        return key_end.index <= begin == end and ":" not in self.text[key_end.index : begin]

    def _wrong(self, node: Node, path: Path, message: str) -> None:
        self.problems.append(Problem(*_position(node.start_mark), path_text(path), message))


def _scalar(tag: str, value: str) -> Any:
    if tag == "str":
        if _SURROGATE.search(value):
            raise ValueError("half of a surrogate pair: write \\U and eight digits")
        return value
    if tag == "int" and _INT.fullmatch(value):
        return int(value, 0)
    if tag == "float" and (_FLOAT.fullmatch(value) or _INT.fullmatch(value)):
        return float(value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if tag == "bool" and _BOOL.fullmatch(value):
        return value.lower() == "true"
    if tag == "null" and _NULL.fullmatch(value):
        return None
    if tag in {"int", "float", "bool", "null"}:
        raise ValueError(f"the tag says {tag}, the value does not")
    raise ValueError("a tag has no meaning here: a text that begins with ! needs quotes")
