"""The token, and the cookie that stands for it in browsers, whose images send no Authorization header."""

import hmac
import secrets
import time

from query.service.settings import ServeSettings

COOKIE = "clipsieve_session"
SESSION_S = 12 * 3600


class Sessions:
    """Tells who has the token. All comparisons take the same time, whatever is wrong."""

    def __init__(self, settings: ServeSettings) -> None:
        """Make a key, so that the cookies end with the process."""
        self._key = secrets.token_bytes(32)
        self._token = None if settings.token is None else settings.token.get_secret_value().encode()

    @property
    def are_needed(self) -> bool:
        """Whether clients need the token."""
        return self._token is not None

    def is_token(self, candidate: bytes) -> bool:
        """Whether it is the token."""
        # the digests have one length, and so do not tell that of the token
        return self._token is not None and hmac.compare_digest(self._digest(candidate), self._digest(self._token))

    def cookie(self) -> str:
        """A new value of the cookie: when it ends, and a proof that this process made it."""
        ends = str(int(time.time()) + SESSION_S)
        return f"{ends}.{self._proof(ends)}"

    def is_valid(self, cookie: str) -> bool:
        """Whether a value of the cookie is one of ours and has not ended."""
        ends, _, proof = cookie.partition(".")
        is_ours = hmac.compare_digest(proof.encode(), self._proof(ends).encode())
        return is_ours and time.time() < int(ends)

    def _proof(self, ends: str) -> str:
        return self._digest(ends.encode() + b" " + (self._token or b"")).hex()

    def _digest(self, value: bytes) -> bytes:
        return hmac.digest(self._key, value, "sha256")
