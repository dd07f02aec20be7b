"""The config file: from YAML text to settings, or to the list of everything that is wrong with it.

Every problem has line, column and path; none shows a value that may be a secret.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from yarl import URL

from collectors.settings import PROXY_SECRETS, CommonSettings, Model, TargetSettings, TlsConfig
from collectors.tls import TlsContexts, tls_contexts
from health_exporter.yaml_document import Document, Problem, parse, path_text, position_at
from health_exporter.yaml_document import Path as Steps

__all__ = ["Config", "ConfigError", "Problem", "load"]

M = TypeVar("M", bound=Model)

TOP_LEVEL = ("defaults", "targets")
TAKEN_LABELS = {
    **dict.fromkeys(("alertname", "severity"), "alerts carry it"),
    **dict.fromkeys(("job", "instance"), "Prometheus sets it"),
    **dict.fromkeys(("namespace", "pod", "container", "service", "endpoint"), "service discovery sets it"),
    **dict.fromkeys(("le", "quantile"), "histograms and summaries carry it"),
}
"""Labels that no target can have, whatever the metrics, and why."""


class ConfigError(Exception):
    """The config cannot be used. Its text has one line for each problem, in the order of the file."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        """Keep the problems, sorted."""
        self.path = path
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(problem.render(path) for problem in self.problems))


@dataclass(frozen=True)
class Config:
    """A config without fault: its targets, the TLS contexts of each tls_config among them, and what is unwise."""

    path: Path
    targets: tuple[TargetSettings, ...]
    tls: Mapping[TlsConfig, TlsContexts]
    warnings: tuple[str, ...]


def load(
    path: Path, kinds: Mapping[str, type[TargetSettings]], reserved_labels: frozenset[str] = frozenset()
) -> Config:
    """Read a config file whose targets are of these kinds; none may have a reserved label. Raises ConfigError."""
    problems: list[Problem] = []
    document = parse(_text(path), problems)
    if document is None:
        raise ConfigError(path, problems)
    loading = _Loading(document, path.parent, kinds, reserved_labels, problems)
    targets = loading.targets()
    contexts = loading.contexts()
    if problems:
        raise ConfigError(path, problems)
    warnings = tuple(dict.fromkeys(warning.render(path) for warning in loading.warnings(targets)))
    return Config(path, tuple(targets), contexts, warnings)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise ConfigError(path, [Problem(1, 1, "", f"cannot read the config: {reason}")]) from error
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        message = "the file begins with a byte order mark: save it as UTF-8 without BOM"
        raise ConfigError(path, [Problem(1, 1, "", message)])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise ConfigError(path, [Problem(*position_at(before, len(before)), "", "not UTF-8 text")]) from None


@dataclass(frozen=True)
class _Finding:
    """Something wrong in a part of the config; `path` begins at the part. The key stands for it, or else the value."""

    path: Steps
    message: str
    at_key: bool = False


class _Loading:
    """One reading of one document: what is wrong goes to `problems`."""

    def __init__(
        self,
        document: Document,
        directory: Path,
        kinds: Mapping[str, type[TargetSettings]],
        reserved_labels: frozenset[str],
        problems: list[Problem],
    ) -> None:
        self._document = document
        self._directory = directory
        self._kinds = kinds
        self._taken_labels = {**dict.fromkeys(reserved_labels, "metrics of this exporter carry it"), **TAKEN_LABELS}
        self._problems = problems
        self._defaults: dict[str, Any] = {}
        self._default_findings: frozenset[_Finding] = frozenset()
        self._tls: dict[TlsConfig, Steps] = {}

    def targets(self) -> list[TargetSettings]:
        """Return the targets that are right."""
        data = {} if self._document.data is None else self._document.data
        if not isinstance(data, dict):
            self._report((), [_Finding((), "must be a mapping with the key targets")])
            return []
        unknown = [_unknown_key((key,), TOP_LEVEL) for key in data if key not in TOP_LEVEL]
        self._report((), unknown)
        self._read_defaults(data.get("defaults"))
        return self._read_targets(data)

    def contexts(self) -> dict[TlsConfig, TlsContexts]:
        """Return the TLS contexts of every tls_config of the targets."""
        contexts = {}
        for config, path in self._tls.items():
            try:
                contexts[config] = tls_contexts(config)
            except ValueError as error:
                self._report(path, [_Finding((), str(error), at_key=True)])
        return contexts

    def warnings(self, targets: list[TargetSettings]) -> Iterator[Problem]:
        """Yield the targets and proxies to which secrets go unencrypted."""
        for index, target in enumerate(targets):
            written = self._document.data["targets"][index]
            path: Steps = ("targets", index, *[key for key in target.ADDRESS_KEYS if written.get(key)])
            yield from self._unencrypted(path, target.address, target.sent_secret_keys())
            if target.proxy_url is not None and target.proxied(str(target.address.host)):
                path = (*(("targets", index) if "proxy_url" in written else ("defaults",)), "proxy_url")
                keys = [key for key in PROXY_SECRETS if getattr(target, key)]
                yield from self._unencrypted(path, target.proxy_url, keys)

    def _unencrypted(self, path: Steps, url: URL, keys: Sequence[str]) -> Iterator[Problem]:
        if keys and url.scheme == "http" and not _is_loopback(str(url.host)):
            message = f"{' and '.join(keys)} would cross the network unencrypted: use https"
            yield Problem(*self._document.where(path), path_text(path), message)

    def _report(self, base: Steps, findings: list[_Finding]) -> None:
        for finding in findings:
            path = base + finding.path
            if path not in self._document.unusable:
                position = self._document.where(path, key=finding.at_key)
                self._problems.append(Problem(*position, path_text(path), finding.message))

    def _read_defaults(self, written: Any) -> None:
        if written is None:
            return
        if not isinstance(written, dict):
            self._report(("defaults",), [_Finding((), _MAPPING)])
            return
        of_targets = {key for kind in self._kinds.values() for key in kind.model_fields} - set(
            CommonSettings.model_fields
        )
        misplaced = [key for key in written if key in of_targets]
        common = {key: value for key, value in written.items() if key not in misplaced}
        findings = self._validated(CommonSettings, common)[1]
        findings += _broken_rules(CommonSettings, common, valid=not findings) + self._labels(common)
        findings += [_Finding((key,), "has no default: give it at each target", at_key=True) for key in misplaced]
        self._report(("defaults",), findings)
        self._default_findings = frozenset(findings)
        self._defaults = {key: value for key, value in written.items() if key in CommonSettings.model_fields}

    def _read_targets(self, data: dict[str, Any]) -> list[TargetSettings]:
        written = data.get("targets")
        if "targets" not in data:
            self._report((), [_Finding((), "missing key targets: at least one target")])
        elif written is None or written == []:
            self._report(("targets",), [_Finding((), "give at least one target")])
        elif not isinstance(written, list):
            self._report(("targets",), [_Finding((), _LIST)])
        else:
            self._report_same_names(written)
            read = [self._read_target(("targets", index), target) for index, target in enumerate(written)]
            return [target for target in read if target is not None]
        return []

    def _report_same_names(self, targets: list[Any]) -> None:
        lines: dict[str, int] = {}
        for index, target in enumerate(targets):
            name = target.get("name") if isinstance(target, dict) else None
            if isinstance(name, str):
                path = ("targets", index, "name")
                if name in lines:
                    self._report(path, [_Finding((), f"the target on line {lines[name]} has this name too")])
                lines.setdefault(name, self._document.where(path)[0])

    def _read_target(self, path: Steps, written: Any) -> TargetSettings | None:
        if not isinstance(written, dict):
            self._report(path, [_Finding((), _MAPPING)])
            return None
        merged = {**self._defaults, **written}
        labels = self._defaults.get("labels"), written.get("labels")
        if isinstance(labels[0], dict) and isinstance(labels[1], dict):
            merged["labels"] = {**labels[0], **labels[1]}
        settings, findings = self._settings(merged)
        findings += self._labels(merged)
        self._note_tls(path, written, merged)
        own = [f for f in findings if f not in self._default_findings or not _is_inherited(f.path, written)]
        self._report(path, own)
        return settings if not findings else None

    def _settings(self, merged: dict[str, Any]) -> tuple[TargetSettings | None, list[_Finding]]:
        kind = merged.get("collector")
        model = self._kinds.get(kind) if isinstance(kind, str) else None
        if model is not None:
            settings, findings = self._validated(model, merged)
            return settings, findings + _broken_rules(model, merged, valid=not findings)
        known = {key: value for key, value in merged.items() if key in TargetSettings.model_fields}
        findings = self._validated(TargetSettings, {**known, "collector": ""})[1]
        return None, [self._no_kind(merged), *findings, *_broken_rules(CommonSettings, known, valid=not findings)]

    def _no_kind(self, merged: dict[str, Any]) -> _Finding:
        names = " | ".join(sorted(self._kinds))
        if "collector" not in merged:
            return _Finding((), f"missing key collector: {names}")
        guess = _did_you_mean(merged["collector"], self._kinds)
        return _Finding(("collector",), f"unknown collector: must be {names}{guess}")

    def _labels(self, written: dict[str, Any]) -> list[_Finding]:
        labels = written.get("labels")
        names = labels if isinstance(labels, dict) else {}
        return [
            _Finding(("labels", name), f"the label {name} cannot be set: {self._taken_labels[name]}", at_key=True)
            for name in names
            if name in self._taken_labels
        ]

    def _note_tls(self, path: Steps, written: dict[str, Any], merged: dict[str, Any]) -> None:
        config, _ = self._validated(TlsConfig, merged.get("tls_config", {}))
        if config is not None:
            base = path if "tls_config" in written or "tls_config" not in self._defaults else ("defaults",)
            self._tls.setdefault(config, (*base, "tls_config"))

    def _validated(self, model: type[M], data: Any) -> tuple[M | None, list[_Finding]]:
        try:
            return model.model_validate(data, context={"directory": self._directory}), []
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            return None, [_finding(model, data, detail) for detail in details]


def _is_inherited(path: Steps, written: dict[str, Any]) -> bool:
    labels = written.get("labels")
    if len(path) > 1 and path[0] == "labels" and isinstance(labels, dict):
        return path[1] not in labels
    return not path or path[0] not in written


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return f".{host.lower().rstrip('.')}".endswith(".localhost")


def _parts(model: type[Model]) -> Iterator[tuple[str, type[Model]]]:
    """Yield the keys of a model whose values are models themselves, with these."""
    for key, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Model):
                yield key, kind


def _broken_rules(model: type[Model], written: dict[str, Any], *, valid: bool) -> list[_Finding]:
    findings = []
    try:
        for key, message in model.rules(written):
            findings.append(_Finding((key,) if key else (), message, at_key=bool(key)))
    except (AttributeError, TypeError, ValueError):
        # The rule met a value of a wrong type, which has been found already.
        if valid:
            raise
    for key, part in _parts(model):
        inner = written.get(key)
        if isinstance(inner, dict):
            findings += [_Finding((key, *f.path), f.message, f.at_key) for f in _broken_rules(part, inner, valid=valid)]
    return findings


_MAPPING = "must be a mapping (lines of key: value)"
_LIST = "must be a list"
_TEXT = "must be a text"
_MESSAGES = {
    "assertion_error": "{error}",
    "bool_type": "must be true or false",
    "dict_type": _MAPPING,
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:.15g}",
    "greater_than_equal": "must be at least {ge:.15g}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:.15g}",
    "less_than_equal": "must be at most {le:.15g}",
    "list_type": _LIST,
    "model_type": _MAPPING,
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": _TEXT,
    "too_long": "must have at most {max_length} entries",
    "too_short": "must not be empty",
    "tuple_type": _LIST,
    "value_error": "{error}",
}
"""Words for an operator instead of pydantic's, by its error types and with their context."""


def _finding(model: type[Model], data: Any, detail: ErrorDetails) -> _Finding:
    """Return a validation error in the terms of the file."""
    kind, context = detail["type"], detail.get("ctx", {})
    path, value = _followed(detail["loc"], data)
    if kind == "missing":
        return _Finding(path, f"missing key {detail['loc'][-1]}")
    if kind == "extra_forbidden":
        return _unknown_key(path, _fields_at(model, path[:-1]))
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return _Finding(path, f"must be {' | '.join(known)}{_did_you_mean(value, known)}")
    message = _MESSAGES[kind].format_map(context) if kind in _MESSAGES else detail["msg"]
    if message == _TEXT and isinstance(value, int | float):
        message += ": put it in quotes"
    return _Finding(path, message, at_key=detail["loc"][-1:] == ("[key]",))


def _followed(loc: tuple[int | str, ...], data: Any) -> tuple[Steps, Any]:
    """Return the steps of a pydantic location that the document has too, and the value there."""
    path: Steps = ()
    for step in loc:
        if step in (data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()):
            data = data[step]
            path = (*path, step)
    return path, data


def _fields_at(model: type[Model], path: Steps) -> list[str]:
    for step in path:
        model = dict(_parts(model)).get(str(step), model)
    return list(model.model_fields)


def _unknown_key(path: Steps, known: Any) -> _Finding:
    return _Finding(path, f"unknown key{_did_you_mean(path[-1], known)}", at_key=True)


def _did_you_mean(value: Any, known: Any) -> str:
    near = difflib.get_close_matches(value, known, n=1) if isinstance(value, str) else []
    return f", did you mean {near[0]}?" if near else ""
