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


ANYWHERE = (400, 401, 403, 408, 413, 421, 429, 431, 503)
"""Statuses of the guards, which every route declares: not HTTP; no token; another origin; too slow; too large; another
host; too many requests; too large a head; ending, or took too long."""


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route for OpenAPI: its own, and those of the guards."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
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
