"""From a whole HTTP answer to a typed reply, or to the one reason why it is none.

The order of the questions is the order of `Reason`: is it a redirect, is it this API at all, does it accept the
credential, does it know the path, is the status the promised one, does the body parse, has it the right shape.
"""

from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from collectors.failures import Failure, Reason
from collectors.http import HttpClient, Reply

REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class ReplyModel(BaseModel):
    """A part of a reply: unknown keys are ignored, nothing is converted, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


T = TypeVar("T", bound=BaseModel)


def check_status(reply: Reply, promised: Collection[int], *, is_ours: bool = True) -> None:
    """Raise Failure for a status that is not promised; `is_ours` says whether the body is that of the API."""
    status = reply.status
    if status in promised and is_ours:
        return
    words = f"status {status}"
    if 300 <= status < 400:  # noqa: PLR2004
        raise Failure(Reason.REDIRECT, words)
    if status == HTTPStatus.MISDIRECTED_REQUEST:
        raise Failure(Reason.WRONG_TARGET, words)
    if not is_ours and (200 <= status < 300 or status in REFUSALS):  # noqa: PLR2004
        raise Failure(Reason.WRONG_TARGET, f"{words}, but the body is not that of the API")
    if status in REFUSALS:
        raise Failure(Reason.AUTH, words)
    if status == HTTPStatus.NOT_FOUND:
        raise Failure(Reason.NOT_FOUND, words)
    raise Failure(Reason.HTTP_STATUS, words)


async def read_document(
    client: HttpClient, reply: Reply, is_ours: Callable[[Any], bool], promised: Collection[int] = (HTTPStatus.OK,)
) -> Any:
    """Return the decoded JSON document of an answer with a promised status.

    `is_ours` tells whether a document bears the marks of the API. Raises Failure.
    """
    judged = reply.status in promised or 200 <= reply.status < 300 or reply.status in REFUSALS  # noqa: PLR2004
    if not judged or (reply.status in REFUSALS and not reply.body.strip()):
        check_status(reply, promised)
    try:
        document = await client.decode_json(reply.body)
    except ValueError as error:
        check_status(reply, promised, is_ours=reply.status not in REFUSALS and _looks_like_json(reply))
        raise Failure(Reason.DECODE, f"status {reply.status}, but the body is no JSON") from error
    check_status(reply, promised, is_ours=is_ours(document))
    return document


def _looks_like_json(reply: Reply) -> bool:
    """Return whether a body that does not parse was meant as JSON, not a page of something else."""
    begin = reply.body.lstrip()[:1]
    return begin in {b"{", b"["} or (begin != b"<" and "json" in reply.headers.get("Content-Type", "").lower())


def parse(model: type[T], document: Any) -> T:
    """Return a document as a typed reply. Raises Failure(schema), naming the place and never the value."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step) if isinstance(step, int) else step[:40] for step in first["loc"][:6])
        raise Failure(Reason.SCHEMA, f"{place or 'the document'}: {first['type']}") from error
