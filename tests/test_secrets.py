"""Secrets: where they come from, that they follow their files, and that they never show."""

import os
from pathlib import Path

import pytest

from collectors.secrets import MASK, Secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("first\n")
    return path


def rewrite(path: Path, text: str) -> None:
    """Replace the text of a file as a mounted secret is replaced: by another file."""
    other = path.with_name("other")
    other.write_text(text)
    other.replace(path)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("plain", "plain"),
        ("${A_SECRET}", "s3cret"),
        ("Bearer ${A_SECRET}!", "Bearer s3cret!"),
        ("${A_SECRET}${A_SECRET}", "s3crets3cret"),
        ("a$$b", "a$b"),
        ("$${A_SECRET}", "${A_SECRET}"),
        ("$$$$", "$$"),
        ("$A_SECRET", "$A_SECRET"),
        ("${}", "${}"),
        ("${1X}", "${1X}"),
        ("a$", "a$"),
        (" inner space ", " inner space "),
        ("pässwörd", "pässwörd"),
    ],
)
def test_a_literal_refers_to_the_environment(monkeypatch: pytest.MonkeyPatch, written: str, value: str) -> None:
    monkeypatch.setenv("A_SECRET", "s3cret")
    assert Secret.literal(written).get() == value


def test_a_reference_in_the_environment_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "${PATH}$$")
    assert Secret.literal("${A_SECRET}").get() == "${PATH}$$"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "the secret is empty"),
        (" \t", "the secret is empty"),
        ("a\nb", "the secret has a line break or another control character"),
        ("a\x00", "the secret has a line break or another control character"),
        ("a\x7f", "the secret has a line break or another control character"),
        ("${NOT_SET_HERE}", "environment variable NOT_SET_HERE is not set or empty"),
        ("${EMPTY_HERE}", "environment variable EMPTY_HERE is not set or empty"),
        ("${WITH_BREAK}", "the secret has a line break or another control character"),
    ],
)
def test_a_literal_that_cannot_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch, written: str, message: str) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    monkeypatch.setenv("EMPTY_HERE", "")
    monkeypatch.setenv("WITH_BREAK", "a\r\nb")
    with pytest.raises(ValueError, match=f"^{message}$"):
        Secret.literal(written)


def test_the_space_around_the_secret_of_a_file_is_not_part_of_it(path: Path) -> None:
    path.write_text("\n  a b \r\n")
    secret = Secret.from_file(path)
    assert (secret.get(), secret.version, secret.path) == ("a b", 0, path)


def test_a_byte_order_mark_is_not_part_of_the_secret_of_a_file(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfa b\r\n")
    assert Secret.from_file(path).get() == "a b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "secret file {path}: the secret is empty"),
        (b" \n", "secret file {path}: the secret is empty"),
        (b"a\nb\n", "secret file {path}: the secret has a line break or another control character"),
        (b"\xff\xfe", "secret file {path} is not UTF-8 text"),
    ],
)
def test_a_file_without_usable_secret_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Secret.from_file(path)
    assert str(caught.value) == message.format(path=path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read secret file .*none: No such file or directory"):
        Secret.from_file(tmp_path / "none")
    with pytest.raises(ValueError, match=r"cannot read secret file .*: Is a directory"):
        Secret.from_file(tmp_path)
    with pytest.raises(ValueError, match="null"):
        Secret.from_file(tmp_path / "a\0b")


def test_a_literal_has_nothing_to_read_again() -> None:
    secret = Secret.literal("a")
    assert secret.refresh() is None
    assert (secret.get(), secret.version) == ("a", 0)


def test_a_secret_follows_its_file_and_counts_the_changes(path: Path) -> None:
    secret = Secret.from_file(path)
    assert secret.refresh() is None
    assert (secret.get(), secret.version) == ("first", 0)
    rewrite(path, "second")
    assert secret.refresh() is None
    assert (secret.get(), secret.version) == ("second", 1)
    rewrite(path, "third")
    assert secret.refresh() is None
    assert (secret.get(), secret.version) == ("third", 2)


def test_a_file_that_is_written_again_with_the_same_secret_is_no_change(path: Path) -> None:
    secret = Secret.from_file(path)
    rewrite(path, " first ")
    assert secret.refresh() is None
    assert secret.version == 0


def test_a_file_that_has_not_changed_is_not_read(path: Path) -> None:
    secret = Secret.from_file(path)
    before = path.stat()
    path.write_text("FIRST\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert secret.refresh() is None
    assert secret.get() == "first"


def test_a_change_while_the_file_is_read_is_seen_the_next_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def read_and_replace(self: Path, encoding: str) -> str:
        text = read_text(self, encoding=encoding)
        monkeypatch.undo()
        rewrite(path, "second")
        return text

    monkeypatch.setattr(Path, "read_text", read_and_replace)
    secret = Secret.from_file(path)
    assert secret.get() == "first"
    assert secret.refresh() is None
    assert secret.get() == "second"


def test_the_last_good_value_stays_while_the_file_is_bad(path: Path) -> None:
    secret = Secret.from_file(path)
    path.unlink()
    for _ in range(2):
        assert secret.refresh() == f"cannot read secret file {path}: No such file or directory"
    path.write_text("")
    assert secret.refresh() == f"secret file {path}: the secret is empty"
    path.write_bytes(b"\xff")
    assert secret.refresh() == f"secret file {path} is not UTF-8 text"
    assert (secret.get(), secret.version) == ("first", 0)
    path.write_text("second")
    assert secret.refresh() is None
    assert (secret.get(), secret.version) == ("second", 1)


def test_a_requirement_holds_for_every_later_value(path: Path) -> None:
    def short(value: str) -> None:
        if len(value) > 6:
            raise ValueError("too long")

    secret = Secret.from_file(path).require(short)
    rewrite(path, "far too long")
    assert "too long" in str(secret.refresh())
    assert (secret.get(), secret.version) == ("first", 0)
    with pytest.raises(ValueError, match="too long"):
        Secret.literal("far too long").require(short)


def test_a_secret_never_shows(path: Path) -> None:
    for secret in (Secret.from_file(path), Secret.literal("first")):
        shown = f"{secret}|{secret!r}|{[secret]}|{secret!s:>9}|" + "%s" % secret  # noqa: UP031
        assert "first" not in shown
        assert repr(secret) == MASK


def test_secrets_are_equal_if_value_and_file_are(path: Path) -> None:
    one, two = Secret.from_file(path), Secret.from_file(path)
    assert one == two
    assert hash(one) == hash(two)
    assert one != Secret.literal("first")
    assert Secret.literal("a") == Secret.literal("a")
    assert Secret.literal("a") != Secret.literal("b")
    assert Secret.literal("a") != "a"
