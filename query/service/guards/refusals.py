"""What a guard answers instead of the route."""

from collections.abc import Mapping

from starlette.responses import Response

from query.service.metrics import Metrics
from query.service.problems import problem


def refusal(
    metrics: Metrics, reason: str, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Count a refused request, and say why it was refused.

    Args:
        metrics: Where it is counted.
        reason: Label of the counter: one word.
        status: HTTP status, one of `problems.ANYWHERE`.
        detail: One line: what was wrong, what to do.
        headers: Of the response.
    """
    metrics.rejected.labels(reason).inc()
    return problem(status, detail, headers)
