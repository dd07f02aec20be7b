"""What can be written for the keys that every kind of target has, and the field types collectors write models with."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from yarl import URL

from collectors.settings import (
    BasicAuth,
    CommonSettings,
    Duration,
    FilePath,
    Model,
    PositiveDuration,
    SecretFile,
    SecretText,
    Size,
    TargetSettings,
    Texts,
    TlsConfig,
    Url,
    check_host,
    covers,
    one_of,
    parse_url,
)


class Fields(Model):
    duration: Duration = 0.0
    positive: PositiveDuration = 1.0
    size: Size | None = None
    url: Url | None = None
    file: FilePath | None = None
    texts: Texts = ()
    secret: SecretText | None = None
    secret_file: SecretFile | None = None


def value(key: str, written: object, directory: Path = Path()) -> Any:
    return getattr(Fields.model_validate({key: written}, context={"directory": directory}), key)


def fault(model: type[Model], written: dict[str, Any]) -> str:
    """Return the one message for what is written, which it must not repeat."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(written)
    (detail,) = caught.value.errors(include_input=False)
    return detail["msg"]


def target(**written: Any) -> TargetSettings:
    return TargetSettings.model_validate({"name": "a", "collector": "x", "url": "https://h", **written})


# --- durations and sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1h", 3600), ("1d", 86400), ("1.5s", 1.5), (7, 7), (0.25, 0.25), (0, 0)],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(written: object, seconds: float) -> None:
    assert value("duration", written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "5",
        "5 s",
        "-5s",
        "s",
        "5w",
        "1m30s",
        "5s\n",
        ".5s",
        "\u0663s",
        "9" * 400 + "s",
        -1,
        True,
        None,
        [],
        float("nan"),
        float("inf"),
        10**400,
    ],
)
def test_anything_else_is_no_duration(written: object) -> None:
    assert fault(Fields, {"duration": written}).startswith("not a duration")


@pytest.mark.parametrize("written", [0, 0.0, "0ms"])
def test_a_duration_that_bounds_something_is_more_than_0(written: object) -> None:
    assert fault(Fields, {"positive": written}) == "must be more than 0"


@given(st.floats(min_value=0, max_value=1e6))
def test_a_number_of_seconds_is_kept_as_it_is(seconds: float) -> None:
    assert value("duration", seconds) == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("500kB", 500_000),
        ("16MiB", 16 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("1 TB", 10**12),
        ("10B", 10),
        ("10", 10),
        (1, 1),
    ],
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(written: object, size: int) -> None:
    assert value("size", written) == size


@pytest.mark.parametrize(
    "written", ["", "B", "5 miles", "5MiB x", "1iB", "-5B", "\u0663B", -1, 1.5, True, [], "9" * 400 + "B", 10**400]
)
def test_anything_else_is_no_size(written: object) -> None:
    assert fault(Fields, {"size": written}) == "not a size: write 500kB, 16MiB or a number of bytes"


@pytest.mark.parametrize("written", [0, "0B", "0.1B"])
def test_a_size_is_more_than_0(written: object) -> None:
    assert fault(Fields, {"size": written}) == "must be more than 0"


# --- hosts and URLs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://h", "http://h"),
        ("https://h/", "https://h"),
        ("https://h/a/b/", "https://h/a/b"),
        ("https://h/a%2Fb", "https://h/a%2Fb"),
        ("HTTPS://H:8443", "https://h:8443"),
        ("http://10.0.0.1:80/", "http://10.0.0.1"),
        ("http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("http://my_host", "http://my_host"),
        ("http://b\u00fccher.example", "http://xn--bcher-kva.example"),
        ("https://h.", "https://h."),
    ],
)
def test_a_url_names_scheme_host_port_and_path(written: str, url: str) -> None:
    assert str(parse_url(written)) == str(value("url", written)) == str(URL(url))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (5, "not a URL"),
        ("", "a URL here begins with http:// or https:// and a host"),
        ("h:80", "a URL here begins with http:// or https:// and a host"),
        ("ftp://h", "a URL here begins with http:// or https:// and a host"),
        ("http:///x", "a URL here begins with http:// or https:// and a host"),
        ("http://h:99999", "not a valid URL"),
        ("http://[::1", "not a valid URL"),
        ("https://s3cret@h", "a user part in a URL is not allowed: it would show; use the keys for credentials"),
        ("https://:s3cret@h", "a user part in a URL is not allowed: it would show; use the keys for credentials"),
        ("https://h?key=s3cret", "a query or fragment in the URL is not allowed"),
        ("https://h#s3cret", "a query or fragment in the URL is not allowed"),
        (" http://h", "a URL has no space and no control character"),
        ("http://a\nb", "a URL has no space and no control character"),
        ("http://h/\x00", "a URL has no space and no control character"),
        ("http://1.2.3", "not a valid host: 1.2.3"),
        ("http://a..b", "not a valid host: a..b"),
        ("http://" + "a" * 64, "not a valid host: " + "a" * 64),
        ("http://a,b", "not a valid host: a,b"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused(written: object, message: str) -> None:
    assert fault(Fields, {"url": written}) == message


@pytest.mark.parametrize("host", ["h", "a.b.c", "a.b.", "10.0.0.1", "::1", "fe80::1%eth0", "a" * 63, "1.example"])
def test_a_host_is_an_address_or_a_name(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize("written", ["h", "h:80", "[::1]:80", "10.0.0.1"])
def test_a_host_header_is_a_host_with_or_without_port(written: str) -> None:
    assert target(host_header=written).host_header == written


@pytest.mark.parametrize(
    "written", ["", "h/", "h/x", "h?", "h#", "u@h", "h:99999", "a b", "a\r\nX: y", "1.2.3", "http://h"]
)
def test_a_host_header_is_nothing_else(written: str) -> None:
    assert fault(CommonSettings, {"host_header": written}) == "not a host, or host:port"


# --- files and secrets ----------------------------------------------------------------------------------------------


def test_a_relative_path_is_relative_to_the_directory_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert value("file", "f", tmp_path) == tmp_path / "f"
    assert value("file", str(tmp_path / "f")) == tmp_path / "f"
    assert value("secret_file", "f", tmp_path).get() == "x"


@pytest.mark.parametrize("key", ["file", "secret_file"])
@pytest.mark.parametrize(
    ("written", "message"),
    [("", "not a path"), (5, "not a path"), ([], "not a path"), ("none", "No such file or directory")],
)
def test_a_file_that_cannot_be_read_is_refused(key: str, written: object, message: str) -> None:
    assert message in fault(Fields, {key: written})


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (5, "a secret is a text: put it in quotes"),
        ("", "the secret is empty"),
        ("s3cret\n", "the secret has a line break"),
    ],
)
def test_a_secret_is_a_text_that_can_be_sent(written: object, message: str) -> None:
    shown = fault(Fields, {"secret": written})
    assert shown.startswith(message)
    assert "s3cret" not in shown


def test_secrets_are_masked_wherever_settings_show(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("s3cret")
    written = {
        "name": "a",
        "collector": "x",
        "url": "https://h",
        "basic_auth": {"username": "u", "password": "s3cret"},
        "headers": {"X-A": "s3cret"},
        "header_files": {"X-B": "f"},
        "proxy_auth_file": "f",
    }
    settings = TargetSettings.model_validate(written, context={"directory": tmp_path})
    assert {secret.get() for secret in settings.secrets()} == {"s3cret"}
    assert len(settings.secrets()) == 4
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "s3cret" not in shown
        assert "<secret>" in shown
    assert settings.model_dump(mode="json")["headers"] == {"X-A": "<secret>"}


def test_the_keys_whose_secrets_go_to_the_target_are_known(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("s3cret")
    context = {"directory": tmp_path}
    written: dict[str, Any] = {"name": "a", "collector": "x", "url": "https://h"}
    proxy = {**written, "proxy_auth": "a:b", "headers": {"X-A": "b"}}
    assert TargetSettings.model_validate(proxy).sent_secret_keys() == ()
    sent = {**written, "basic_auth": {"username": "u", "password": "p"}, "header_files": {"X-A": "f"}}
    assert TargetSettings.model_validate(sent, context=context).sent_secret_keys() == ("basic_auth", "header_files")


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["headers", "header_files"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'' is not a header name"),
        ("a b", "'a b' is not a header name"),
        ("a:", "'a:' is not a header name"),
        ("a\n", "'a\\n' is not a header name"),
        ("\u00e4", "'\u00e4' is not a header name"),
        ("Host", "the header Host cannot be set: use host_header"),
        ("content-LENGTH", "the header content-LENGTH cannot be set"),
        ("Transfer-Encoding", "the header Transfer-Encoding cannot be set"),
        ("Connection", "the header Connection cannot be set"),
        ("Accept-Encoding", "the header Accept-Encoding cannot be set"),
    ],
)
def test_a_header_that_cannot_be_set_is_refused(tmp_path: Path, key: str, name: str, message: str) -> None:
    (tmp_path / "f").write_text("x")
    assert fault(CommonSettings, {key: {name: str(tmp_path / "f")}}) == message


@pytest.mark.parametrize("name", ["a", "A9", "_a", "a.b:c-d", "9", "a" * 63])
def test_a_target_name_is_fit_for_a_label_and_a_url(name: str) -> None:
    assert target(name=name).name == name


@pytest.mark.parametrize("name", ["", ".a", ":a", "-a", "a b", "a/b", "\u00e4", "a\n", "a" * 64])
def test_no_other_target_name_is_taken(name: str) -> None:
    assert fault(TargetSettings, {"name": name, "collector": "x"}).startswith("a target name has 1 to 63")


@pytest.mark.parametrize("name", ["", "9a", "a-b", "a.b", "__a", "\u00e4", "a\n"])
def test_a_label_name_that_prometheus_refuses_is_refused(name: str) -> None:
    assert fault(CommonSettings, {"labels": {name: "x"}}) == f"{name!r} is not a label name"


def test_a_user_name_has_no_colon() -> None:
    assert fault(BasicAuth, {"username": "a:b"}) == "a user name has no colon"


# --- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "host", "covered"),
    [
        ("*", "anything", True),
        ("example.com", "example.com", True),
        ("example.com", "a.b.EXAMPLE.com", True),
        (".Example.com", "a.example.com", True),
        ("example.com", "badexample.com", False),
        ("example.com", "example.org", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.0.0.7/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "h", False),
        ("10.0.0.0/8", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8::1", True),
    ],
)
def test_an_entry_of_no_proxy_covers_names_below_it_addresses_and_networks(
    entry: str, host: str, covered: bool
) -> None:
    assert covers(entry, host) is covered


def test_requests_go_through_a_proxy_if_there_is_one_and_no_proxy_does_not_name_the_host() -> None:
    assert not target().proxied("h")
    assert target(proxy_url="http://p").proxied("h")
    assert target(proxy_url="http://p", no_proxy=["x"]).proxied("h")
    assert not target(proxy_url="http://p", no_proxy=["x", "h"]).proxied("h")


# --- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "written", "broken"),
    [
        (TlsConfig, {"cert_file": "c"}, []),
        (TlsConfig, {"key_file": "k"}, [("key_file", "key_file needs cert_file")]),
        (BasicAuth, {"password": "p"}, []),
        (BasicAuth, {"password": None}, [("", "give password or password_file")]),
        (
            BasicAuth,
            {"password": "p", "password_file": "f"},
            [("password_file", "give only one of password and password_file")],
        ),
        (CommonSettings, {}, []),
        (
            CommonSettings,
            {"proxy_auth": "a", "proxy_auth_file": "f"},
            [("proxy_auth_file", "give only one of proxy_auth and proxy_auth_file")],
        ),
        (CommonSettings, {"headers": {"X-A": "b"}, "header_files": {"x-b": "f"}}, []),
        (
            CommonSettings,
            {"headers": {"X-A": "b"}, "header_files": {"x-a": "f"}},
            [("header_files", "the header x-a stands in headers too")],
        ),
        (CommonSettings, {"headers": 5, "header_files": []}, []),
        (TargetSettings, {"url": 5}, []),
        (TargetSettings, {}, [("", "give url")]),
        (TargetSettings, {"url": "https://h", "proxy_url": "http://p", "host_header": "x"}, []),
        (
            TargetSettings,
            {"url": "HTTP://h", "proxy_url": "http://p", "host_header": "x", "domain": "d"},
            [
                ("domain", "domain with a proxy needs an https url: a proxy would rewrite the Host of plain http"),
                (
                    "host_header",
                    "host_header with a proxy needs an https url: a proxy would rewrite the Host of plain http",
                ),
            ],
        ),
    ],
)
def test_a_rule_between_keys_holds_whatever_their_values(
    model: type[Model], written: dict[str, Any], broken: list[tuple[str, str]]
) -> None:
    assert list(model.rules(written)) == broken


def test_a_model_has_no_rules_of_its_own_accord() -> None:
    assert list(Fields.rules({"url": 5})) == []
    assert list(one_of({"a": 1}, "a", "b")) == []


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written", [{"labels": {"n": 1}}, {"no_proxy": [5]}, {"no_proxy": "h"}, {"unknown": 1}, {"ip_protocol": "ip5"}]
)
def test_nothing_is_converted_and_nothing_unknown_is_taken(written: dict[str, Any]) -> None:
    assert fault(CommonSettings, written)


def test_settings_do_not_change_and_can_be_keys() -> None:
    config = TlsConfig(insecure_skip_verify=True)
    with pytest.raises(ValidationError):
        config.insecure_skip_verify = False  # type: ignore[misc]
    assert {config: 1}[TlsConfig(insecure_skip_verify=True)] == 1


def test_the_address_of_a_target_is_its_url() -> None:
    assert target().address == URL("https://h")


def test_the_json_schema_asks_for_texts_where_texts_are_written() -> None:
    properties = Fields.model_json_schema()["properties"]
    assert {branch.get("type") for branch in properties["secret"]["anyOf"]} == {"string", "null"}
    assert properties["duration"]["type"] == ["string", "number"]
