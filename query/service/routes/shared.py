"""What routes share."""

from typing import cast

from fastapi import Request

from query.hits.hits import Hits
from query.service.metrics import STAGES
from query.service.service import Service


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return cast(Service, request.app.state.service)


def server_timing(*answers: Hits) -> dict[str, str]:
    """The header that shows browsers' developer tools what took how long; the stages of a second store end in 2."""
    entries = [
        f"{name}{number or ''};dur={getattr(hits.timings, stage):.2f}"
        for number, hits in zip((0, 2), answers, strict=False)
        for stage, name in STAGES.items()
    ]
    return {"Server-Timing": ", ".join(entries)}
