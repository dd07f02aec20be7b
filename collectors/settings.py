"""What can be set for a target: the keys every kind of target has, and the field types to write models with.

A collector's own keys stand in its module, in a subclass of `TargetSettings`. Fields that read files or the
environment take the directory of the config file from the validation context (`{"directory": Path}`).
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from yarl import URL

from collectors.secrets import MASK, Secret

Name = TypeVar("Name", bound=str)


def _fault(message: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{message}", {"message": message})


N = TypeVar("N", bound=float)

_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ms|s|m|h|d)")
_ENDLESS = 1e18
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _ENDLESS:
        return float(value)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _UNITS[match[2]]
    raise _fault("not a duration: write 500ms, 5s, 2m, 1h or a number of seconds")


def _more_than_zero(value: N) -> N:
    if value <= 0:
        raise _fault("must be more than 0")
    return value


_SIZE = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})? ?(?:(?:[kKMGTPE]i?)?B)?")


def _size(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _ENDLESS:
        return value
    if isinstance(value, str) and _SIZE.fullmatch(value):
        return value
    raise _fault("not a size: write 500kB, 16MiB or a number of bytes")


def _directory(info: ValidationInfo) -> Path:
    return info.context["directory"] if info.context else Path()


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise _fault("not a path")
    return _directory(info) / value


def _readable(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise _fault(f"cannot read {path}: {error.strerror}") from error


def _secret_text(value: object) -> Secret:
    if not isinstance(value, str):
        raise _fault("a secret is a text: put it in quotes")
    try:
        return Secret.literal(value)
    except ValueError as error:
        raise _fault(str(error)) from error


def _secret_file(value: object, info: ValidationInfo) -> Secret:
    try:
        return Secret.from_file(_path(value, info))
    except ValueError as error:
        raise _fault(str(error)) from error


def parse_url(value: object) -> URL:
    """Return an http or https URL with a host, without user part, query and fragment, and without trailing slash."""
    if not isinstance(value, str):
        raise _fault("not a URL")
    if " " in value or not value.isprintable():
        raise _fault("a URL has no space and no control character")
    try:
        url = URL(value)
        host, _ = url.host, url.port
    except ValueError as error:
        raise _fault("not a valid URL") from error
    if url.scheme not in {"http", "https"} or not host:
        raise _fault("a URL here begins with http:// or https:// and a host")
    if url.user is not None or url.password is not None:
        raise _fault("a user part in a URL is not allowed: it would show; use the keys for credentials")
    if url.query_string or url.fragment:
        raise _fault("a query or fragment in the URL is not allowed")
    check_host(host)
    return url.with_path(url.raw_path.rstrip("/"), encoded=True)


_HOST = re.compile(r"[\w.-]+")


def check_host(host: str) -> str:
    """Return the host if a connection to it can be tried: an IP address, or a name DNS can carry."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.rstrip(".").split(".")
        if not _HOST.fullmatch(host) or host.replace(".", "").isdigit() or not all(0 < len(x) < 64 for x in labels):  # noqa: PLR2004
            raise _fault(f"not a valid host: {host}") from None
    return host


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}


def _header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise _fault(f"{name!r} is not a header name")
    if name.lower() in _FRAMING:
        raise _fault(f"the header {name} cannot be set" + (": use host_header" if name.lower() == "host" else ""))
    return name


def _label_name(name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) or name.startswith("__"):
        raise _fault(f"{name!r} is not a label name")
    return name


def _writable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _fault("not a text that can be written as UTF-8") from error
    return text


def _target_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}", name):
        raise _fault("a target name has 1 to 63 of the characters A-Z a-z 0-9 _ . : - and begins with none of . : -")
    return name


def _host_header(value: str) -> str:
    try:
        url = parse_url(f"http://{value}")
    except PydanticCustomError:
        url = URL()
    if not url.host or set(value) & set("/?#@"):
        raise _fault("not a host, or host:port")
    return value


_MASKED = PlainSerializer(lambda _: MASK, return_type=str)
_TEXT_SCHEMA = WithJsonSchema({"type": "string"})

Duration = Annotated[
    float, BeforeValidator(_seconds), WithJsonSchema({"type": ["string", "number"], "examples": ["500ms", "5s", "2m"]})
]
"""Seconds; written as 500ms, 5s, 2m, 1h or a number of seconds."""
PositiveDuration = Annotated[Duration, AfterValidator(_more_than_zero)]
"""A duration of more than 0 seconds."""
FilePath = Annotated[Path, BeforeValidator(_path), AfterValidator(_readable), _TEXT_SCHEMA]
"""A readable file; a relative path is relative to the config file."""
SecretText = Annotated[Secret, BeforeValidator(_secret_text), _MASKED, _TEXT_SCHEMA]
"""A secret written in the config: literal, or `${ENV_NAME}`."""
SecretFile = Annotated[Secret, BeforeValidator(_secret_file), _MASKED, _TEXT_SCHEMA]
"""The path of a file that holds a secret."""
Url = Annotated[URL, BeforeValidator(parse_url), PlainSerializer(str, return_type=str), _TEXT_SCHEMA]
"""An http or https URL without user part, query and fragment."""


def _each_once(names: tuple[Name, ...]) -> tuple[Name, ...]:
    if not names:
        raise _fault("must not be empty")
    if len(set(names)) < len(names):
        raise _fault("a check is listed twice")
    return names


CheckList = Annotated[tuple[Name, ...], Field(strict=False), AfterValidator(_each_once)]
"""The checks to make: at least one, none twice."""
Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""A list of texts."""
Size = Annotated[ByteSize, BeforeValidator(_size), AfterValidator(_more_than_zero)]
"""Bytes; written as 500kB, 16MiB or a number of bytes."""


class Model(BaseModel):
    """A part of the config: unknown keys are errors, nothing is converted silently, nothing can be changed later.

    `rules` are what one field's type cannot say; they look at the keys as written, so that they hold beside any other
    error of the same part.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:  # noqa: ARG003
        """Yield (key, message) for each rule between keys that is broken; key "" is the part itself."""
        yield from ()


def one_of(written: Mapping[str, Any], *keys: str, required: bool = True) -> Iterator[tuple[str, str]]:
    """Yield an error unless exactly one of the keys is given (or, if not required, at most one)."""
    given = [key for key in keys if written.get(key) is not None]
    if len(given) > 1:
        yield given[1], f"give only one of {' and '.join(given)}"
    elif required and not given:
        yield "", f"give {' or '.join(keys)}"


def kept_free(written: Mapping[str, Any], header: str, why: str) -> Iterator[tuple[str, str]]:
    """Yield an error for `headers` and `header_files` that set this header, since it holds the credential."""
    for key in ("headers", "header_files"):
        given = written.get(key)
        if isinstance(given, Mapping) and any(str(name).lower() == header.lower() for name in given):
            yield key, f"{header} cannot be set here: {why}"


class TlsConfig(Model):
    """How the server's certificate is checked, and the client's own."""

    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    server_name: str | None = None
    insecure_skip_verify: bool = False

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Hold the client certificate and its key together."""
        if written.get("key_file") and not written.get("cert_file"):
            yield "key_file", "key_file needs cert_file"


class BasicAuth(Model):
    """User and password of a proxy or gateway in front of the target."""

    username: Annotated[str, AfterValidator(lambda name: name if ":" not in name else _no_colon())]
    password: SecretText | None = None
    password_file: SecretFile | None = None

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Hold the two ways to give the password apart."""
        yield from one_of(written, "password", "password_file")


def _no_colon() -> str:
    raise _fault("a user name has no colon")


PROXY_SECRETS = ("proxy_auth", "proxy_auth_file")
"""The keys whose secrets are sent to the proxy."""


class CommonSettings(Model):
    """The keys every kind of target has and `defaults` may give."""

    timeout: PositiveDuration = 5.0
    labels: dict[Annotated[str, AfterValidator(_label_name)], Annotated[str, AfterValidator(_writable)]] = {}
    tls_config: TlsConfig = TlsConfig()
    basic_auth: BasicAuth | None = None
    headers: dict[Annotated[str, AfterValidator(_header_name)], SecretText] = {}
    header_files: dict[Annotated[str, AfterValidator(_header_name)], SecretFile] = {}
    proxy_url: Url | None = None
    proxy_auth: SecretText | None = None
    proxy_auth_file: SecretFile | None = None
    no_proxy: Texts = ()
    host_header: Annotated[str, AfterValidator(_host_header)] | None = None
    ip_protocol: Literal["any", "ip4", "ip6"] = "any"
    max_body_size: Size = ByteSize(16 * 2**20)

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Hold the two ways to give the proxy's credentials apart, and every header to one value."""
        yield from one_of(written, *PROXY_SECRETS, required=False)
        headers, files = written.get("headers"), written.get("header_files")
        if isinstance(headers, Mapping) and isinstance(files, Mapping):
            names = {str(name).lower() for name in headers}
            for name in files:
                if str(name).lower() in names:
                    yield "header_files", f"the header {name} stands in headers too"


class TargetSettings(CommonSettings):
    """One target: the common keys, and its own name, kind and URL."""

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("url",)
    """Keys of which exactly one says where the target is."""

    name: Annotated[str, AfterValidator(_target_name)]
    collector: str
    url: Url | None = None

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Ask for an address; refuse a changed Host through a proxy over plain http, which cannot be pinned there."""
        yield from super().rules(written)
        yield from one_of(written, *cls.ADDRESS_KEYS)
        if written.get("proxy_url") and str(written.get("url", "")).lower().startswith("http:"):
            for key in ("domain", "host_header"):
                if written.get(key):
                    yield key, f"{key} with a proxy needs an https url: a proxy would rewrite the Host of plain http"

    @property
    def address(self) -> URL:
        """The URL of the target."""
        assert self.url is not None, "the rules of the model ask for it"
        return self.url

    def check_names(self) -> tuple[str, ...]:
        """Return the checks of this target, in the order of the docs."""
        raise NotImplementedError

    def secrets(self) -> tuple[Secret, ...]:
        """Return every secret of the target."""
        return tuple(_secrets_in(self))

    def sent_secret_keys(self) -> tuple[str, ...]:
        """Return the keys whose secrets are sent to the address of the target itself."""
        elsewhere = {"headers", *PROXY_SECRETS}
        return tuple(key for key, value in self if key not in elsewhere and any(_secrets_in(value)))

    def proxied(self, host: str) -> bool:
        """Return whether requests to a host go through `proxy_url`: there is one, and `no_proxy` does not name it."""
        return self.proxy_url is not None and not any(covers(entry, host) for entry in self.no_proxy)


def covers(entry: str, host: str) -> bool:
    """Return whether an entry of no_proxy covers a host: `*`, a name and all below it, an address or a network."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name = entry.lstrip(".").lower()
        return host.lower() == name or host.lower().endswith(f".{name}")


def _secrets_in(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Model):
        for _, part in value:
            yield from _secrets_in(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _secrets_in(part)
