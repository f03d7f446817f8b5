"""The headers that every response has, whichever guard or route gave it."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
EVERYWHERE = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    # not no-referrer: with that, browsers send `Origin: null` with the forms of this very page
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def with_headers(app: ASGIApp, named_origins: frozenset[str]) -> ASGIApp:
    """Add the security headers, and forbid caches to keep what does not say how long.

    Args:
        app: What answers.
        named_origins: Origins whose pages may show the images.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        is_named = Headers(scope=scope).get("origin") in named_origins

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in EVERYWHERE.items():
                    headers[name] = value
                headers["Cross-Origin-Resource-Policy"] = "cross-origin" if is_named else "same-origin"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await app(scope, receive, send_more)

    return guard
