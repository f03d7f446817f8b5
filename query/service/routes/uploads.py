"""Queries in the body of a request: JSON, or a form with the file of an image."""

import logging
from collections.abc import AsyncIterator
from typing import Any, TypeVar, get_origin

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from query.service.problems import ProblemError, invalid
from query.service.questions import MOST_CHARACTERS, SearchBody, StoreParams
from query.service.routes.shared import service_of

JSON, FORM = "application/json", "multipart/form-data"
IMAGE = "image"
"""The field of the file."""

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each bad form, and clients send them

_MOST_JSON = 4_000_000
_MOST_VALUES = 100_000
"""A vector has up to 65,536. Each value that is no query costs far more than its bytes."""
_MOST_FIELDS = 128
_MOST_FIELD_BYTES = 4 * MOST_CHARACTERS

Params = TypeVar("Params", bound=BaseModel)


def media_type_of(request: Request) -> str:
    """What the body is said to be, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, model: type[Params]) -> Params:
    """The body as JSON.

    Raises:
        ProblemError: 413 if it is too large; 422 if it is no JSON, or not as `model` says.
    """
    most = min(_MOST_JSON, service_of(request).settings.max_upload)
    return parsed(b"".join([part async for part in _counted(request, most)]), model)


def parsed(body: bytes, model: type[Params]) -> Params:
    """A body as JSON.

    Raises:
        ProblemError: 422 if it is no JSON, has too many values, or is not as `model` says.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ProblemError(422, f"the body has more than {_MOST_VALUES} values; send fewer")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _what_is_invalid(error) from error


async def read_form(request: Request, model: type[Params]) -> tuple[Params, bytes | None]:
    """The body as a form: its fields, and the file in the field `image`, None if there is none or none was chosen.

    Raises:
        ProblemError: 413 if it is too large; 422 if it is no form in UTF-8, or not as `model` says.
    """
    # the parser would decode by any codec of Python, some of which raise errors or give halves of characters
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() != b"utf-8":
        raise ProblemError(422, f"the form is in {charset.decode('latin-1')!r}; expected utf-8")
    body = _counted(request, service_of(request).settings.max_upload)
    parser = _Parser(request.headers, body, max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD_BYTES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(422, f"the form cannot be read: {error.message}") from error
    try:
        return fields_of(form, model), await _image_of(form)
    finally:
        await form.close()


def fields_of(form: FormData, model: type[Params]) -> Params:
    """The fields that are texts, as a model. Those of lists may be repeated; of others, the last one counts.

    Raises:
        ProblemError: 422 if they are not as `model` says.
    """
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            continue
        field = model.model_fields.get(name)
        if field and get_origin(field.annotation) is list:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    found.pop(IMAGE, None)  # `_image_of` says what is wrong with it
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise _what_is_invalid(error) from error


def body_schema() -> dict[str, Any]:
    """`read_json` and `read_form` for OpenAPI."""
    fields = StoreParams.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "An image to look for, alone or with the rest."}
    with_file = {**fields, "title": "SearchForm", "properties": {IMAGE: file, **fields["properties"]}}
    example = {"text": {"value": {"text": "two dogs playing in snow", "k": 3}}}
    return {
        "required": True,
        "content": {
            JSON: {"schema": SearchBody.model_json_schema(), "examples": example},
            FORM: {"schema": with_file, "examples": example},
        },
    }


class _Parser(MultiPartParser):
    spool_max_size = 0  # never to disk: the size is limited, and a disk can be full


async def _counted(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they arrive.

    Raises:
        ProblemError: 413 once there are more bytes than allowed, whatever Content-Length says; 400 if the client went
            away.
    """
    num_bytes = 0
    try:
        async for part in request.stream():
            num_bytes += len(part)
            if num_bytes > most:
                raise ProblemError(413, f"the request has more than {most} bytes; send a smaller one")
            yield part
    except ClientDisconnect as error:
        raise ProblemError(400, "the request ended before its body did") from error


async def _image_of(form: FormData) -> bytes | None:
    for name, value in form.multi_items():
        if isinstance(value, str) and name == IMAGE:
            raise ProblemError(422, f"{IMAGE}: expected a file, found a text")
        if isinstance(value, UploadFile) and name != IMAGE:
            raise ProblemError(422, f"found a file in another field; expected it in the field {IMAGE!r}")
        if isinstance(value, UploadFile) and (value.size or value.filename):
            return await value.read()
    return None


def _what_is_invalid(error: ValidationError) -> ProblemError:
    return ProblemError(422, invalid(error.errors(include_url=False, include_context=False, include_input=False)))
