"""From a whole answer to a document, or to the one reason why it is none."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from collectors.base import Clock
from collectors.failures import Failure, Reason
from collectors.http import LARGE_BODY, HttpClient, Reply
from collectors.replies import ReplyModel, check_status, parse, read_document

OURS = b'{"meta": {}}'
FOREIGN = b'{"other": 1}'
HTML = b"<!doctype html><html></html>"
JSON = "application/json; charset=utf-8"
TEXT = "text/html"


def is_ours(document: Any) -> bool:
    return isinstance(document, dict) and "meta" in document


def reply(status: int, body: bytes, content_type: str | None = JSON) -> Reply:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return Reply(status, CIMultiDictProxy(CIMultiDict(headers)), body, 0.0, 0.0)


async def outcome(answer: Reply, promised: tuple[int, ...] = (200,)) -> Any:
    try:
        return await read_document(HttpClient("t", Clock()), answer, is_ours, promised)
    except Failure as failure:
        return failure.reason


DOCUMENT: dict[str, Any] = {"meta": {}}


@pytest.mark.parametrize(
    ("status", "content_type", "body", "promised", "expected"),
    [
        (200, JSON, OURS, (200,), DOCUMENT),
        (200, TEXT, OURS, (200,), DOCUMENT),
        (200, None, OURS, (200,), DOCUMENT),
        (404, JSON, OURS, (404,), DOCUMENT),
        (503, JSON, OURS, (200, 503), DOCUMENT),
        # A body that is not this API's.
        (200, JSON, FOREIGN, (200,), Reason.WRONG_TARGET),
        (200, JSON, b"[]", (200,), Reason.WRONG_TARGET),
        (200, JSON, b"null", (200,), Reason.WRONG_TARGET),
        (200, TEXT, HTML, (200,), Reason.WRONG_TARGET),
        (200, JSON, HTML, (200,), Reason.WRONG_TARGET),
        (200, TEXT, b"pong", (200,), Reason.WRONG_TARGET),
        (200, None, b"pong", (200,), Reason.WRONG_TARGET),
        (200, None, b"", (200,), Reason.WRONG_TARGET),
        (200, JSON, b"\n <html>", (200,), Reason.WRONG_TARGET),
        (201, JSON, FOREIGN, (200,), Reason.WRONG_TARGET),
        (204, None, b"", (200,), Reason.WRONG_TARGET),
        (421, JSON, OURS, (200,), Reason.WRONG_TARGET),
        # Meant as JSON, but broken.
        (200, JSON, b"", (200,), Reason.DECODE),
        (200, JSON, b"pong", (200,), Reason.DECODE),
        (200, JSON, b'{"meta": {}', (200,), Reason.DECODE),
        (200, TEXT, b' {"meta": ', (200,), Reason.DECODE),
        (200, TEXT, b"[1, 2", (200,), Reason.DECODE),
        (200, "APPLICATION/PROBLEM+JSON", b"x", (200,), Reason.DECODE),
        (200, JSON, b'{"meta": NaN}', (200,), Reason.DECODE),
        (200, JSON, b'{"meta": "\xff"}', (200,), Reason.DECODE),
        # Other statuses.
        (201, JSON, OURS, (200,), Reason.HTTP_STATUS),
        (206, JSON, b"{", (200,), Reason.HTTP_STATUS),
        (301, JSON, OURS, (200,), Reason.REDIRECT),
        (302, TEXT, HTML, (200,), Reason.REDIRECT),
        (399, None, b"", (200,), Reason.REDIRECT),
        (304, None, b"", (200,), Reason.REDIRECT),
        (401, JSON, OURS, (200,), Reason.AUTH),
        (403, JSON, OURS, (200,), Reason.AUTH),
        (401, None, b"", (200,), Reason.AUTH),
        (403, TEXT, b" \r\n", (200,), Reason.AUTH),
        (401, JSON, FOREIGN, (200,), Reason.WRONG_TARGET),
        (403, TEXT, HTML, (200,), Reason.WRONG_TARGET),
        (401, JSON, b"{", (200,), Reason.WRONG_TARGET),
        (401, JSON, b"", (200, 401), Reason.WRONG_TARGET),
        (404, JSON, OURS, (200,), Reason.NOT_FOUND),
        (404, TEXT, HTML, (200,), Reason.NOT_FOUND),
        (100, None, b"", (200,), Reason.HTTP_STATUS),
        (101, None, b"", (200,), Reason.HTTP_STATUS),
        (400, JSON, OURS, (200,), Reason.HTTP_STATUS),
        (410, None, b"", (200,), Reason.HTTP_STATUS),
        (429, JSON, b"{", (200,), Reason.HTTP_STATUS),
        (500, JSON, OURS, (200,), Reason.HTTP_STATUS),
        (502, TEXT, HTML, (200,), Reason.HTTP_STATUS),
        (503, TEXT, HTML, (200, 503), Reason.HTTP_STATUS),
        (503, JSON, FOREIGN, (200, 503), Reason.HTTP_STATUS),
        (999, None, b"", (200,), Reason.HTTP_STATUS),
        # Deeper than anything of these APIs.
        (200, JSON, b"[" * 100_000, (200,), Reason.TOO_LARGE),
        (401, JSON, b"[" * (LARGE_BODY + 1), (200,), Reason.TOO_LARGE),
    ],
)
async def test_an_answer_is_a_document_or_has_one_reason(
    status: int, content_type: str | None, body: bytes, promised: tuple[int, ...], expected: Any
) -> None:
    assert await outcome(reply(status, body, content_type), promised) == expected


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("meta"), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.binary(max_size=64) | JSON_VALUES.map(lambda value: json.dumps(value).encode())


@settings(deadline=None)
@given(
    st.integers(100, 999),
    BODIES,
    st.sampled_from([None, JSON, TEXT, ""]),
    st.sets(st.sampled_from([200, 204, 302, 401, 404, 421, 503])),
)
async def test_any_answer_ends_as_a_document_or_a_failure(
    status: int, body: bytes, content_type: str | None, promised: set[int]
) -> None:
    found = await outcome(reply(status, body, content_type), tuple(promised))
    if isinstance(found, Reason):
        assert found != Reason.INTERNAL
    else:
        assert status in promised
        assert is_ours(found)


@settings(deadline=None)
@given(st.integers(100, 999), st.booleans())
def test_a_status_passes_only_if_it_is_promised_and_ours(status: int, ours: bool) -> None:
    check_status(reply(status, b""), {status})
    with pytest.raises(Failure) as caught:
        check_status(reply(status, b""), set(), is_ours=ours)
    assert str(status) in caught.value.detail
    with pytest.raises(Failure):
        check_status(reply(status, b""), {status}, is_ours=False)


class Part(ReplyModel):
    number: float


class Whole(ReplyModel):
    name: str
    parts: list[Part] = []
    by_name: dict[str, Part] = {}


def test_a_document_of_the_right_shape_is_typed_and_unknown_keys_are_ignored() -> None:
    whole = parse(Whole, {"name": "x", "parts": [{"number": 1, "more": None}], "new": 1})
    assert whole == Whole(name="x", parts=[Part(number=1.0)])


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (None, "the document: model_type"),
        ([], "the document: model_type"),
        ({}, "name: missing"),
        ({"name": 5}, "name: string_type"),
        ({"name": "x", "parts": [{"number": 1}, {"number": "5"}]}, "parts.1.number: float_type"),
        ({"name": "x", "parts": [{"number": float("inf")}]}, "parts.0.number: finite_number"),
        ({"name": "x", "parts": [{"number": True}]}, "parts.0.number: float_type"),
        ({"name": "x", "by_name": {"y" * 100: {}}}, f"by_name.{'y' * 40}.number: missing"),
    ],
)
def test_a_document_of_the_wrong_shape_names_the_place_and_never_the_value(document: Any, place: str) -> None:
    with pytest.raises(Failure) as caught:
        parse(Whole, document)
    assert caught.value.reason == Reason.SCHEMA
    assert caught.value.detail == place


@settings(deadline=None)
@given(JSON_VALUES)
def test_any_document_is_typed_or_a_schema_failure(document: Any) -> None:
    found: object
    try:
        found = parse(Whole, document)
    except Failure as failure:
        found = failure.reason
    assert isinstance(found, Whole) or found is Reason.SCHEMA
