"""Errors as `application/problem+json` (RFC 9457), and which of them a route declares."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from pipeline.errors import ClipsieveError, StoreError, on_one_line

MEDIA_TYPE = "application/problem+json"
FAILED = "the service failed; its log says why"


class Problem(BaseModel):
    """What went wrong."""

    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["the query is empty; describe what to look for"])


class ProblemError(Exception):
    """Ends a request with a status and a reason."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """End the request.

        Args:
            status: HTTP status.
            detail: One line: what failed, what was expected, what to do.
            headers: Of the response.
        """
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    @classmethod
    def of(cls, error: ClipsieveError) -> "ProblemError":
        """What an error of the search means to a client: 409 if the store cannot answer, 422 if the query is wrong."""
        return cls(409 if isinstance(error, StoreError) else 422, str(error))

    def response(self) -> JSONResponse:
        """The response."""
        return problem(self.status, self.detail, self.headers)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response that says what went wrong."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, detail=on_one_line(detail)).model_dump()
    return JSONResponse(content, status, dict(headers or {}), MEDIA_TYPE)


ANYWHERE = {
    400: "The request is not valid HTTP, or its Host header is malformed.",
    401: "The token is missing or wrong.",
    403: "A page of another origin sent the request.",
    408: "The request arrived too slowly.",
    413: "The request is too large, or its image has too many pixels.",
    421: "The service has no such host name.",
    429: "Too many requests are being answered.",
    431: "The headers of the request are too large.",
    503: "The service is starting or ending, or the answer took too long.",
}
"""Statuses of the guards, which every route declares."""
_MEANINGS = ANYWHERE | {
    404: "There is no such store or image.",
    409: "The store cannot answer such a query.",
    415: "The body has another media type than those declared.",
    422: "The query is wrong; `detail` says how.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}}}


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route for OpenAPI: its own, and those of the guards."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": _RETRY_AFTER} if status in (429, 503) else {}),
        }
        for status in sorted({*ANYWHERE, *statuses})
    }


def invalid(errors: Sequence[Mapping[str, Any]]) -> str:
    """One line for what pydantic found: the first field, what was expected, and how many more there are."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "body", "path"))
    message = str(first["msg"]).removeprefix("Value error, ")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {message[:1].lower()}{message[1:]}{more}" if place else f"{message}{more}"
