"""Which addresses the guards treat in a special way."""

from starlette.types import Scope

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""What watches the service: answered however busy it is."""

_OPEN = frozenset({"/livez", "/readyz", "/healthz", "/login"})


def route_path(scope: Scope) -> str:
    """The path of a request without the prefix of a proxy."""
    return scope["path"].removeprefix(scope["root_path"])


def is_open(path: str) -> bool:
    """Whether it needs no token: neither images nor what is searched for can be seen there."""
    return path in _OPEN or path.startswith("/static/")
