"""Under which names the service answers.

A page of any site can point a name of its own at 127.0.0.1 (DNS rebinding), and browsers then let it read what answers
there. They send the name in the Host header, so a name that is not ours is refused. An IP address cannot be rebound.
"""

import re
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from query.service.guards.refusals import refusal
from query.service.metrics import Metrics
from query.service.settings import ServeSettings

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


def for_our_hosts(app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> ASGIApp:
    """Refuse requests for other hosts, at any address: a probe can use the IP address."""
    names = {"localhost", settings.host.lower(), *(name.lower() for name in settings.host_name)}

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            detail = "the Host header is missing, doubled or malformed; expected one such as localhost:8000"
            return await refusal(metrics, "host", 400, detail)(scope, receive, send)
        name = match["name"].lower()
        if name not in names and not _is_address(name):
            detail = (
                f"the service does not answer for the host name {name}; start it with --host-name {name} if it should"
            )
            return await refusal(metrics, "host", 421, detail)(scope, receive, send)
        await app(scope, receive, send)

    return guard


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
