"""What a config file may hold, and what is said about one that cannot be used."""

import functools
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from collectors import tls
from collectors.settings import Duration, Model, SecretFile, SecretText, TargetSettings, TlsConfig, one_of
from health_exporter import config as config_module
from health_exporter.config import Config, ConfigError, load
from health_exporter.yaml_document import position_at

MARKER = "S3cr3tMarker"


class Window(Model):
    """A part with a rule of its own."""

    width: Duration = 1.0
    steps: int = Field(default=1, gt=0, le=100)
    path: Annotated[tuple[int, ...], Field(strict=False)] = ()

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if written.get("steps") == 13:
            yield "steps", "13 steps bring no luck"
        if max(written.get("path", [])[:2], default=0) > 9:
            yield "path", "a path begins below 10"


class Gadget(TargetSettings):
    """A kind of target with every sort of key."""

    collector: Literal["gadget"]
    token: SecretText | None = None
    token_file: SecretFile | None = None
    username: str | None = None
    checks: Annotated[tuple[Literal["health", "detailed"], ...], Field(strict=False, min_length=1)] = ("health",)
    window: Window | None = None
    ratio: float = Field(default=0.5, ge=0, lt=1)
    steady: bool = False

    @classmethod
    def rules(cls, written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from super().rules(written)
        yield from one_of(written, "token", "token_file")


class Widget(TargetSettings):
    """A kind of target that asks for nothing more, but for short texts."""

    ADDRESS_KEYS = ("url", "endpoint_file")

    collector: Literal["widget"]
    endpoint_file: SecretFile | None = None
    motto: str = Field(default="on", min_length=1, max_length=5)
    timeout: Annotated[Duration, Field(le=60)] = 5.0


CONTEXTS = functools.cache(tls.tls_contexts)
KINDS: Mapping[str, type[TargetSettings]] = {"gadget": Gadget, "widget": Widget}


@pytest.fixture(autouse=True)
def _quick_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the contexts of one tls_config once for all tests."""
    monkeypatch.setattr(config_module, "tls_contexts", CONTEXTS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(MARKER)
    (tmp_path / "empty").write_text("\n")
    return tmp_path / "f.yml"


def load_text(file: Path, text: str, reserved: frozenset[str] = frozenset()) -> Config:
    file.write_text(text, encoding="utf-8", newline="")
    return load(file, KINDS, reserved)


def lines(file: Path, text: str, reserved: frozenset[str] = frozenset()) -> list[str]:
    """Return the problems of a config, each without its directory."""
    with pytest.raises(ConfigError) as caught:
        load_text(file, text, reserved)
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


def target(extra: str = "", kind: str = "widget") -> str:
    """Return a config with one target, of five lines and those given."""
    return f"targets:\n  - name: a\n    collector: {kind}\n    url: https://h\n" + extra


GOOD = """\
defaults:
  timeout: 2s
  labels: {team: core, site: eu}
  headers: {X-Tenant: a}
targets:
  - name: one
    collector: gadget
    url: https://one.example.com/api/
    token_file: token
    labels: {site: us}
    checks: [detailed, health]
    window: {width: 500ms}
    basic_auth: {username: u, password: p}
  - name: two
    collector: widget
    url: http://localhost:8080
    timeout: 7
    max_body_size: 1MiB
    tls_config: {insecure_skip_verify: true}
"""


# --- what is right --------------------------------------------------------------------------------------------------


def test_a_target_has_its_own_keys_and_those_of_defaults(file: Path) -> None:
    config = load_text(file, GOOD)
    one, two = config.targets
    assert isinstance(one, Gadget)
    assert (one.name, str(one.url), one.timeout, one.checks) == (
        "one",
        "https://one.example.com/api",
        2.0,
        ("detailed", "health"),
    )
    assert (two.timeout, two.max_body_size, two.tls_config.insecure_skip_verify) == (7.0, 2**20, True)
    assert config.path == file
    assert config.warnings == ()


def test_labels_are_merged_and_the_target_wins(file: Path) -> None:
    one, two = load_text(file, GOOD).targets
    assert one.labels == {"team": "core", "site": "us"}
    assert two.labels == {"team": "core", "site": "eu"}


def test_other_keys_of_defaults_are_replaced_whole(file: Path) -> None:
    config = load_text(file, GOOD + "    headers: {X-Other: b}\n")
    assert set(config.targets[1].headers) == {"X-Other"}


def test_each_distinct_tls_config_has_its_contexts_once(file: Path) -> None:
    config = load_text(file, GOOD)
    assert set(config.tls) == {TlsConfig(), TlsConfig(insecure_skip_verify=True)}
    assert all(isinstance(config.tls[one.tls_config].asking, ssl.SSLContext) for one in config.targets)


def test_paths_are_relative_to_the_config_file(file: Path) -> None:
    (one, _) = load_text(file, GOOD).targets
    assert isinstance(one, Gadget)
    assert one.token_file is not None
    assert one.token_file.get() == MARKER


def test_defaults_may_be_there_and_empty(file: Path) -> None:
    assert len(load_text(file, "defaults:\n" + target()).targets) == 1


def test_an_environment_reference_is_expanded_in_secrets_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t")
    (one,) = load_text(file, target("    token: ${TOKEN}$$\n    labels: {x: '${TOKEN}'}\n", "gadget")).targets
    assert isinstance(one, Gadget)
    assert one.token is not None
    assert one.token.get() == "t$"
    assert one.labels == {"x": "${TOKEN}"}


@pytest.mark.parametrize("value", ["on", "yes", "010", "12:30", "off"])
def test_what_older_yaml_would_convert_stays_a_text(file: Path, value: str) -> None:
    (one,) = load_text(file, target(f"    motto: {value}\n    labels: {{x: {value}}}\n")).targets
    assert isinstance(one, Widget)
    assert one.motto == one.labels["x"] == value


# --- secrets over plain http ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["10.0.0.1", "example.com", "localhost.example.com", "[2001:db8::1]", "xlocalhost"])
def test_a_secret_over_plain_http_is_warned_of(file: Path, host: str) -> None:
    text = target("    basic_auth: {username: u, password: p}\n", "gadget").replace("https://h", f"http://{host}")
    config = load_text(file, text + "    token_file: token\n")
    assert config.warnings == (
        f"{file}:4:10: targets[0].url: basic_auth and token_file would cross the network unencrypted: use https",
    )


def test_the_credentials_of_a_proxy_over_plain_http_are_warned_of(file: Path) -> None:
    lines = "    proxy_url: http://proxy.example.com:3128\n    proxy_auth: u:p\n"
    warning = "proxy_auth would cross the network unencrypted: use https"
    assert load_text(file, target(lines)).warnings == (f"{file}:5:16: targets[0].proxy_url: {warning}",)
    defaults = "defaults: {proxy_auth: 'u:p', proxy_url: 'http://proxy.example.com'}\n"
    shown = load_text(file, defaults + TWO).warnings
    assert shown == (f"{file}:1:42: defaults.proxy_url: {warning}",)


@pytest.mark.parametrize("url", ["http://localhost:3128", "https://proxy.example.com"])
def test_the_credentials_of_a_proxy_that_nobody_can_hear_are_not_warned_of(file: Path, url: str) -> None:
    assert load_text(file, target(f"    proxy_url: {url}\n    proxy_auth: u:p\n")).warnings == ()


@pytest.mark.parametrize("lines", ["no_proxy: [h]", "proxy_url: ~"])
def test_the_credentials_of_a_proxy_that_is_not_used_are_not_warned_of(file: Path, lines: str) -> None:
    defaults = "defaults: {proxy_auth: 'u:p', proxy_url: 'http://proxy.example.com'}\n"
    assert load_text(file, defaults + target(f"    {lines}\n")).warnings == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST.", "a.localhost"])
def test_a_secret_to_loopback_is_not_warned_of(file: Path, host: str) -> None:
    assert (
        load_text(file, target("    token_file: token\n", "gadget").replace("https://h", f"http://{host}")).warnings
        == ()
    )


def test_plain_http_without_secret_is_not_warned_of(file: Path) -> None:
    assert load_text(file, target("    headers: {X-A: b}\n").replace("https:", "http:")).warnings == ()


def test_every_target_has_its_warning(file: Path) -> None:
    text = (
        GOOD.replace("https://one", "http://one").replace("localhost", "h")
        + "    basic_auth: {username: u, password: p}\n"
    )
    assert [w.split(": ")[1] for w in load_text(file, text).warnings] == ["targets[0].url", "targets[1].url"]


# --- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\xef\xbb\xbftargets: []", "f.yml:1:1: the file begins with a byte order mark: save it as UTF-8 without BOM"),
        (
            "targets: []".encode("utf-16"),
            "f.yml:1:1: the file begins with a byte order mark: save it as UTF-8 without BOM",
        ),
        (b"targets:\n- \xc3\xa4\xe4", "f.yml:2:4: not UTF-8 text"),
        (b"\xff", "f.yml:1:1: not UTF-8 text"),
        (b"", "f.yml:1:1: missing key targets: at least one target"),
        (b"# nothing\n\n", "f.yml:1:1: missing key targets: at least one target"),
        (b"a: \x00", "f.yml:1:4: the character U+0000 is not allowed"),
    ],
)
def test_a_file_that_is_no_config_is_refused(file: Path, data: bytes, line: str) -> None:
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(file, KINDS)
    assert str(caught.value).replace(f"{file.parent}/", "") == line


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yml:1:1: cannot read the config: No such file or directory$"):
        load(tmp_path / "none.yml", KINDS)


def test_a_directory_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r":1:1: cannot read the config: Is a directory$"):
        load(tmp_path, KINDS)


def test_an_impossible_file_name_is_an_error_like_any_other() -> None:
    with pytest.raises(ConfigError, match="cannot read the config: not a file name"):
        load(Path("a\0b"), KINDS)


def test_problems_are_data_too(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(file, target("    motto: 5\n"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.path) == (5, 12, "targets[0].motto")
    assert caught.value.path == file


# --- single errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "1:1: must be a mapping with the key targets"),
        ("targets", "1:1: must be a mapping with the key targets"),
        ("targets: []", "1:10: targets: give at least one target"),
        ("targets:", "1:9: targets: give at least one target"),
        ("targets: {}", "1:10: targets: must be a list"),
        ("targets: 0", "1:10: targets: must be a list"),
        ("targets: [a]", "1:11: targets[0]: must be a mapping (lines of key: value)"),
        ("defaults: 5\n" + target(), "1:11: defaults: must be a mapping (lines of key: value)"),
        ("default: {}\n" + target(), "1:1: default: unknown key, did you mean defaults?"),
        ("targets: !x []", "1:10: targets: a tag has no meaning here: a text that begins with ! needs quotes"),
        ("!x a", "1:1: a tag has no meaning here: a text that begins with ! needs quotes"),
    ],
)
def test_a_wrong_frame_is_refused(file: Path, text: str, line: str) -> None:
    assert lines(file, text) == [f"f.yml:{line}"]


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("moto: x", "5:5: targets[0].moto: unknown key, did you mean motto?"),
        ("zzzzzz: x", "5:5: targets[0].zzzzzz: unknown key"),
        ("motto: 5", "5:12: targets[0].motto: must be a text: put it in quotes"),
        ("motto: true", "5:12: targets[0].motto: must be a text: put it in quotes"),
        ("motto: [x]", "5:12: targets[0].motto: must be a text"),
        ("motto: ''", "5:12: targets[0].motto: must not be empty"),
        ("motto: abcdef", "5:12: targets[0].motto: must have at most 5 characters"),
        ("timeout: soon", "5:14: targets[0].timeout: not a duration: write 500ms, 5s, 2m, 1h or a number of seconds"),
        ("timeout: 2m", "5:14: targets[0].timeout: must be at most 60"),
        ("ip_protocol: ipv4", "5:18: targets[0].ip_protocol: must be any | ip4 | ip6, did you mean ip4?"),
        ("ip_protocol: 4", "5:18: targets[0].ip_protocol: must be any | ip4 | ip6"),
        (
            "max_body_size: 5 miles",
            "5:20: targets[0].max_body_size: not a size: write 500kB, 16MiB or a number of bytes",
        ),
        ("no_proxy: h", "5:15: targets[0].no_proxy: must be a list"),
        ("no_proxy: [h, 010, 5]", "5:24: targets[0].no_proxy[2]: must be a text: put it in quotes"),
        ("labels: [a]", "5:13: targets[0].labels: must be a mapping (lines of key: value)"),
        ("labels: {n: 1}", "5:17: targets[0].labels.n: must be a text: put it in quotes"),
        ("labels: {a-b: x}", "5:14: targets[0].labels.a-b: 'a-b' is not a label name"),
        ("labels: {__x: x}", "5:14: targets[0].labels.__x: '__x' is not a label name"),
        ("headers: {'a b': x}", "5:15: targets[0].headers[\"a b\"]: 'a b' is not a header name"),
        ("headers: {Host: x}", "5:15: targets[0].headers.Host: the header Host cannot be set: use host_header"),
        ("headers: {X-A: ''}", "5:20: targets[0].headers.X-A: the secret is empty"),
        ("headers: {X-A: 5}", "5:20: targets[0].headers.X-A: a secret is a text: put it in quotes"),
        (
            "header_files: {X-A: none}",
            "5:25: targets[0].header_files.X-A: cannot read secret file none: No such file or directory",
        ),
        ("header_files: {X-A: empty}", "5:25: targets[0].header_files.X-A: secret file empty: the secret is empty"),
        (
            "proxy_auth: ${NOT_SET_HERE}",
            "5:17: targets[0].proxy_auth: environment variable NOT_SET_HERE is not set or empty",
        ),
        ("proxy_url: http://h?q=1", "5:16: targets[0].proxy_url: a query or fragment in the URL is not allowed"),
        ("tls_config: ", "5:16: targets[0].tls_config: must be a mapping (lines of key: value)"),
        ("tls_config: {ca_fil: x}", "5:18: targets[0].tls_config.ca_fil: unknown key, did you mean ca_file?"),
        (
            "tls_config: {ca_file: none}",
            "5:27: targets[0].tls_config.ca_file: cannot read none: No such file or directory",
        ),
        ("tls_config: {key_file: token}", "5:18: targets[0].tls_config.key_file: key_file needs cert_file"),
        (
            "tls_config: {insecure_skip_verify: yes}",
            "5:40: targets[0].tls_config.insecure_skip_verify: must be true or false",
        ),
        (
            "tls_config: {ca_file: token}",
            "5:5: targets[0].tls_config: token holds no usable CA certificate (NO_CERTIFICATE_OR_CRL_FOUND)",
        ),
        ("basic_auth: {password: p}", "5:17: targets[0].basic_auth: missing key username"),
        ("basic_auth: {username: u}", "5:17: targets[0].basic_auth: give password or password_file"),
        ("endpoint_file: token", "5:5: targets[0].endpoint_file: give only one of url and endpoint_file"),
        ("window: {a", "6:1: not valid YAML: expected ',' or '}', but got '<stream end>'"),
        ("url: https://i", "5:5: targets[0].url: duplicate key, first on line 4"),
        ("motto: !x y", "5:12: targets[0].motto: a tag has no meaning here: a text that begins with ! needs quotes"),
        (
            "motto: x\n  - name: a\n    collector: widget\n    url: https://i",
            "6:11: targets[1].name: the target on line 2 has this name too",
        ),
    ],
)
def test_an_error_of_a_target_is_shown_where_it_is(file: Path, extra: str, line: str) -> None:
    assert lines(file, target(f"    {extra}\n")) == [f"f.yml:{line}"]


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("checks: []", "5:13: targets[0].checks: must not be empty"),
        ("checks: [health, detaild]", "5:22: targets[0].checks[1]: must be health | detailed, did you mean detailed?"),
        ("window: 5s", "5:13: targets[0].window: must be a mapping (lines of key: value)"),
        ("window: {steps: 1.5}", "5:21: targets[0].window.steps: must be a whole number"),
        ("window: {steps: x}", "5:21: targets[0].window.steps: must be a whole number"),
        ("window: {steps: 0}", "5:21: targets[0].window.steps: must be more than 0"),
        ("window: {steps: 101}", "5:21: targets[0].window.steps: must be at most 100"),
        ("window: {path: 5}", "5:20: targets[0].window.path: must be a list"),
        ("window: {path: [10]}", "5:14: targets[0].window.path: a path begins below 10"),
        ("window: {steps: 13}", "5:14: targets[0].window.steps: 13 steps bring no luck"),
        ("ratio: x", "5:12: targets[0].ratio: must be a number"),
        ("ratio: -1", "5:12: targets[0].ratio: must be at least 0"),
        ("ratio: 1", "5:12: targets[0].ratio: must be less than 1"),
        ("token: t", "5:5: targets[0].token: give only one of token and token_file"),
    ],
)
def test_an_error_of_the_keys_of_a_kind_is_shown_where_it_is(file: Path, extra: str, line: str) -> None:
    shown = lines(file, target(f"    {extra}\n    token_file: token\n", "gadget"))
    assert shown in (
        [f"f.yml:{line}"],
        [f"f.yml:{line}".replace("5:5: targets[0].token:", "6:5: targets[0].token_file:")],
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("targets: [{name: a, url: https://h}]", "1:11: targets[0]: missing key collector: gadget | widget"),
        (
            target(kind="wigdet"),
            "3:16: targets[0].collector: unknown collector: must be gadget | widget, did you mean widget?",
        ),
        (target(kind="zzz"), "3:16: targets[0].collector: unknown collector: must be gadget | widget"),
        (target(kind="5"), "3:16: targets[0].collector: unknown collector: must be gadget | widget"),
    ],
)
def test_a_target_of_no_known_kind_is_told_the_kinds(file: Path, text: str, line: str) -> None:
    assert lines(file, text) == [f"f.yml:{line}"]


def test_the_common_keys_of_a_target_of_no_known_kind_are_checked(file: Path) -> None:
    text = target(
        "    timeout: x\n    token: t\n    basic_auth: {username: u}\n    proxy_auth: a\n    proxy_auth_file: token\n"
    )
    assert [line.split(": ")[1] for line in lines(file, text.replace("widget", "x"))] == [
        "targets[0].collector",
        "targets[0].timeout",
        "targets[0].basic_auth",
        "targets[0].proxy_auth_file",
    ]


def test_a_rule_that_fails_for_values_without_fault_is_a_bug(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rules(written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        raise TypeError("bug")

    monkeypatch.setattr(Window, "rules", rules)
    with pytest.raises(TypeError, match="bug"):
        load_text(file, target("    token_file: token\n    window: {steps: 5}\n", "gadget"))


# --- labels that are taken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *[(name, "Prometheus sets it") for name in ("job", "instance")],
        *[(name, "service discovery sets it") for name in ("namespace", "pod", "container", "service", "endpoint")],
        *[(name, "alerts carry it") for name in ("alertname", "severity")],
        *[(name, "histograms and summaries carry it") for name in ("le", "quantile")],
        ("target", "metrics of this exporter carry it"),
    ],
)
def test_a_label_that_is_taken_is_refused(file: Path, name: str, why: str) -> None:
    shown = lines(file, target(f"    labels: {{x: y, {name}: z}}\n"), frozenset({"target"}))
    assert shown == [f"f.yml:5:20: targets[0].labels.{name}: the label {name} cannot be set: {why}"]


# --- defaults -------------------------------------------------------------------------------------------------------


TWO = "targets:\n  - {name: a, collector: widget, url: https://h}\n  - {name: b, collector: widget, url: https://h}\n"


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("timeout: x", "2:12: defaults.timeout: not a duration: write 500ms, 5s, 2m, 1h or a number of seconds"),
        ("labels: {job: x}", "2:12: defaults.labels.job: the label job cannot be set: Prometheus sets it"),
        ("labels: x", "2:11: defaults.labels: must be a mapping (lines of key: value)"),
        ("basic_auth: {username: u}", "2:15: defaults.basic_auth: give password or password_file"),
        (
            "tls_config: {ca_file: token}",
            "2:3: defaults.tls_config: token holds no usable CA certificate (NO_CERTIFICATE_OR_CRL_FOUND)",
        ),
        (
            "tls_config: {ca_file: none}",
            "2:25: defaults.tls_config.ca_file: cannot read none: No such file or directory",
        ),
        ("timeot: 5", "2:3: defaults.timeot: unknown key, did you mean timeout?"),
        ("motto: x", "2:3: defaults.motto: has no default: give it at each target"),
        ("name: x", "2:3: defaults.name: has no default: give it at each target"),
        (
            "proxy_auth: !x y",
            "2:15: defaults.proxy_auth: a tag has no meaning here: a text that begins with ! needs quotes",
        ),
    ],
)
def test_an_error_of_defaults_is_shown_there_and_once(file: Path, key: str, line: str) -> None:
    assert lines(file, f"defaults:\n  {key}\n{TWO}") == [f"f.yml:{line}"]


def test_two_ways_to_give_one_thing_in_defaults_are_shown_once(file: Path) -> None:
    shown = lines(file, "defaults:\n  proxy_auth: a\n  proxy_auth_file: token\n" + TWO)
    assert shown == ["f.yml:3:3: defaults.proxy_auth_file: give only one of proxy_auth and proxy_auth_file"]


def test_an_error_of_defaults_does_not_hide_that_of_a_target(file: Path) -> None:
    text = "defaults: {timeout: x, labels: {job: a}}\n" + target("    timeout: y\n    labels: {job: b}\n")
    assert [line.split(": ")[1] for line in lines(file, text)] == [
        "defaults.timeout",
        "defaults.labels.job",
        "targets[0].timeout",
        "targets[0].labels.job",
    ]


def test_a_rule_broken_only_together_with_defaults_is_shown_at_the_target(file: Path) -> None:
    text = "defaults: {proxy_auth_file: token}\n" + target("    proxy_auth: a\n")
    (line,) = lines(file, text)
    assert line == "f.yml:3:5: targets[0].proxy_auth_file: give only one of proxy_auth and proxy_auth_file"


def test_a_default_that_one_kind_refuses_is_shown_at_the_target(file: Path) -> None:
    assert lines(file, "defaults: {timeout: 2m}\n" + target()) == ["f.yml:3:5: targets[0].timeout: must be at most 60"]


# --- certificates ---------------------------------------------------------------------------------------------------


def test_a_client_certificate_needs_its_own_key(file: Path) -> None:
    authority = trustme.CA()
    one, other = authority.issue_cert("one"), authority.issue_cert("other")
    one.cert_chain_pems[0].write_to_path(file.parent / "cert")
    one.private_key_pem.write_to_path(file.parent / "key")
    other.private_key_pem.write_to_path(file.parent / "wrong")
    assert load_text(file, target("    tls_config: {cert_file: cert, key_file: key}\n")).warnings == ()
    (line,) = lines(file, target("    tls_config: {cert_file: cert, key_file: wrong}\n"))
    assert line.startswith("f.yml:5:5: targets[0].tls_config: cert and wrong are no usable certificate and key")


def test_a_certificate_of_a_target_with_other_errors_is_checked(file: Path) -> None:
    shown = lines(file, target("    tls_config: {ca_file: token}\n    motto: 5\n"))
    assert [line.split(": ")[1] for line in shown] == ["targets[0].tls_config", "targets[0].motto"]


# --- all at once ----------------------------------------------------------------------------------------------------


BROKEN = """\
defaults:
  timeout: 5 seconds
  labels: {team: core, instance: x}
  usernme: u
  basic_auth: {username: "a:b", password: p, password_file: token}
targets:
  - collector: gadget
    user_name: u
    timeout: 5 parsecs
    token: ${NOT_SET_HERE}
    token_file: none
    window: {steps: 13, width: x, widht: 2}
  - name: twin
    collector: gadgets
    url: https://a
    url: https://b
    ip_protocol: ip5
  - name: twin
    collector: widget
    url: https://user:hunter2@h
    labels: {target: x, n: 1, "a b": c}
    headers: {Host: x, X-A: 5}
    header_files: {x-a: token}
    tls_config: {ca_file: token, insecure_skip_verify: on}
  - 5
  - name: 5
    collector: widget
    api_key: ${NOT_SET_HERE}
    checks: !all
    motto: &m [n]
extra: {}
"""

BROKEN_SHOWN = """\
f.yml:2:12: defaults.timeout: not a duration: write 500ms, 5s, 2m, 1h or a number of seconds
f.yml:3:24: defaults.labels.instance: the label instance cannot be set: Prometheus sets it
f.yml:4:3: defaults.usernme: unknown key
f.yml:5:26: defaults.basic_auth.username: a user name has no colon
f.yml:5:46: defaults.basic_auth.password_file: give only one of password and password_file
f.yml:7:5: targets[0]: give url
f.yml:7:5: targets[0]: missing key name
f.yml:8:5: targets[0].user_name: unknown key, did you mean username?
f.yml:9:14: targets[0].timeout: not a duration: write 500ms, 5s, 2m, 1h or a number of seconds
f.yml:10:12: targets[0].token: environment variable NOT_SET_HERE is not set or empty
f.yml:11:5: targets[0].token_file: give only one of token and token_file
f.yml:11:17: targets[0].token_file: cannot read secret file none: No such file or directory
f.yml:12:14: targets[0].window.steps: 13 steps bring no luck
f.yml:12:32: targets[0].window.width: not a duration: write 500ms, 5s, 2m, 1h or a number of seconds
f.yml:12:35: targets[0].window.widht: unknown key, did you mean width?
f.yml:14:16: targets[1].collector: unknown collector: must be gadget | widget, did you mean gadget?
f.yml:16:5: targets[1].url: duplicate key, first on line 15
f.yml:17:18: targets[1].ip_protocol: must be any | ip4 | ip6, did you mean ip6?
f.yml:18:11: targets[2].name: the target on line 13 has this name too
f.yml:20:10: targets[2].url: a user part in a URL is not allowed: it would show; use the keys for credentials
f.yml:21:14: targets[2].labels.target: the label target cannot be set: metrics of this exporter carry it
f.yml:21:28: targets[2].labels.n: must be a text: put it in quotes
f.yml:21:31: targets[2].labels["a b"]: 'a b' is not a label name
f.yml:22:15: targets[2].headers.Host: the header Host cannot be set: use host_header
f.yml:22:29: targets[2].headers.X-A: a secret is a text: put it in quotes
f.yml:23:5: targets[2].header_files: the header x-a stands in headers too
f.yml:24:56: targets[2].tls_config.insecure_skip_verify: must be true or false
f.yml:25:5: targets[3]: must be a mapping (lines of key: value)
f.yml:26:5: targets[4]: give url or endpoint_file
f.yml:26:11: targets[4].name: must be a text: put it in quotes
f.yml:28:5: targets[4].api_key: unknown key
f.yml:29:13: targets[4].checks: a tag has no meaning here: a text that begins with ! needs quotes
f.yml:30:12: targets[4].motto: must be a text
f.yml:31:1: extra: unknown key
"""


def test_one_broken_file_shows_everything_that_is_wrong_with_it(file: Path) -> None:
    assert lines(file, BROKEN, frozenset({"target"})) == BROKEN_SHOWN.splitlines()


# --- secrets never show ---------------------------------------------------------------------------------------------


SECRETS = f"""\
defaults:
  headers: {{X-A: {MARKER}}}
  proxy_auth: "u:{MARKER}"
targets:
  - name: one
    collector: gadget
    url: https://one.example.com
    token: ${{TOKEN}}
    basic_auth: {{username: u, password: {MARKER}}}
    header_files: {{X-B: token}}
    timeout: 5s
    labels: {{a: b}}
    window: {{width: 1s, steps: 5}}
    tls_config: {{insecure_skip_verify: true}}
  - name: two
    collector: gadget
    url: https://two.example.com
    token: {MARKER}
    ip_protocol: any
"""


def all_that_shows(file: Path, text: str) -> str:
    """Return everything that a program could print of a config or of its errors."""
    try:
        config = load_text(file, text)
    except ConfigError as error:
        shown = f"{error}{error!r}{error.args}{error.problems!r}"
        cause: BaseException | None = error.__cause__
        return f"{shown}{cause!r}{cause}"
    dumps = [f"{one}{one.model_dump()}{one.model_dump_json()}{one.secrets()}" for one in config.targets]
    return f"{config!r}{config}{dumps}"


@pytest.fixture
def secret_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKEN", MARKER)
    return file


def test_no_secret_shows_in_a_good_config(secret_file: Path) -> None:
    assert MARKER not in all_that_shows(secret_file, SECRETS)
    assert {secret.get()[-len(MARKER) :] for secret in load(secret_file, KINDS).targets[0].secrets()} == {MARKER}


@pytest.mark.parametrize(
    "junk", ["[]", "{}", "5", "!x y", "*x", "{a: b}", "", "'", "https://u@h", "${X", "${NOT_SET_HERE}"]
)
def test_no_secret_shows_when_any_other_line_is_broken(secret_file: Path, junk: str) -> None:
    rows = SECRETS.splitlines()
    for at, row in enumerate(rows):
        if ": " in row:
            broken = [*rows[:at], f"{row.split(': ')[0]}: {junk}", *rows[at + 1 :]]
            assert MARKER not in all_that_shows(secret_file, "\n".join(broken))


def test_no_secret_shows_when_its_key_or_any_other_is_mistyped_or_missing(secret_file: Path) -> None:
    rows = SECRETS.splitlines()
    for at, row in enumerate(rows):
        for broken in (
            [],
            [row, row],
            [row.replace(":", "x:", 1)],
            [row.replace(":", "", 1)],
            [f" {row}"],
            [f"{row} x: y"],
        ):
            assert MARKER not in all_that_shows(secret_file, "\n".join([*rows[:at], *broken, *rows[at + 1 :]]))


@pytest.mark.parametrize(
    "before",
    [
        *"*&!@%`|>'\"[]{}?-:#\\\t\x00\x01\x7f",
        "!!int ",
        "!<",
        "!a!",
        "- ",
        "? ",
        "<<: ",
    ],
)
def test_no_secret_shows_when_it_is_badly_quoted(secret_file: Path, before: str) -> None:
    for after in ("", '"', ": x", "\x00", "!", "!x", "\n x: y", "}"):
        for part in (f": {MARKER}\n", f": {MARKER}}}\n"):
            text = SECRETS.replace(part, part.replace(MARKER, f"{before}{MARKER}{after}"))
            assert MARKER not in all_that_shows(secret_file, text.replace(f"X-A: {before}", "X-A: "))


@pytest.mark.parametrize("key", ["    basic_auth: {username: u, password: ", "    headers: {X-A: "])
def test_no_half_of_a_secret_with_a_comma_shows(secret_file: Path, key: str) -> None:
    (line,) = lines(secret_file, target(f"{key}ab,{MARKER}}}\n"))
    assert line.endswith(": a key without value: a text with a comma needs quotes here")
    assert MARKER not in line


# --- whatever stands in the file ------------------------------------------------------------------------------------


BITS = st.sampled_from(
    [
        *":{}[]!'\"#5x~ \n\t\ufeff\x00\x85\U0001f600",
        *("", "- ", "*a", "&a ", "1e999", ".nan", "true", "null", "token", "timeout: ", "labels: ", "<<: ", "..."),
        *("9" * 400, '"\\ud800"', "---\n"),
    ]
)


def ends_well(file: Path, text: str) -> None:
    """Hold the loading of a text to a config, or to problems inside of the text."""
    caught = None
    try:
        load_text(file, text)
    except ConfigError as error:
        caught = error
    if caught is None:
        return
    assert caught.problems
    last = position_at(text, len(text))
    for problem in caught.problems:
        assert (1, 1) <= (problem.line, problem.column) <= last
        assert problem.message
    assert all(line.startswith(f"{file}:") for line in str(caught).split("\n"))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_mutation_of_a_good_file_is_a_config_or_an_error_with_positions(file: Path, data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(begin + 12, len(text))))
        text = text[:begin] + data.draw(BITS) + text[end:]
    ends_well(file, text)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        ["null", "true", "5", "-1", "1.5", ".inf", "x", "'5s'", "token", "none", "https://h", "health", "gadget"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from([*Gadget.model_fields, *Window.model_fields, "x y"]), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([*Gadget.model_fields, "zzz"]), VALUES),
    st.dictionaries(st.sampled_from([*Gadget.model_fields]), VALUES),
)
def test_any_value_of_any_key_is_a_config_or_an_error_with_positions(
    file: Path, own: dict[str, str], defaults: dict[str, str]
) -> None:
    def flow(items: dict[str, str]) -> str:
        return ", ".join(f"{key}: {value}" for key, value in items.items())

    ends_well(file, f"defaults: {{{flow(defaults)}}}\ntargets:\n  - {{{flow({'collector': 'gadget'} | own)}}}\n")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_refused_in_order(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"f\.yml:[0-9]+:[0-9]+: "):
        load(file, KINDS)
