"""Classify a failed read: this file is at fault, a retry may help, or every read would fail."""

import errno
import re
from http import HTTPStatus

from pipeline.errors import first_line
from pipeline.source.access.naming import is_url, is_web
from pipeline.source.secrets import scrubbed

_PASSING_ERRNOS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
                   errno.EHOSTUNREACH, errno.ENOTCONN, errno.ECONNRESET, errno.EREMOTEIO}  # fmt: skip
# how pyarrow reports a server's refusal: S3's error code, or an HTTP status
_CODE = re.compile(r"AWS Error ([A-Z_]+)|google::cloud::Status\(([A-Z_]+)")
_REFUSALS = re.compile(r"ACCESS_DENIED|PERMISSION|NO_SUCH|NOT_FOUND|INVALID|MISSING|MALFORMED|VALIDATION|OPT_IN")
_BAD_CREDENTIALS = re.compile(r"EXPIRED|ACCESS_KEY|SIGNATURE|TOKEN|UNRECOGNIZED_CLIENT|UNAUTHENTICATED")
_STATUS = re.compile(r"HTTP status (\d+)")
# aiohttp's errors that say nothing but the address; by name, because aiohttp is optional
_WORDS = {
    "TooManyRedirects": "too many redirects: the server sends every request on to another address",
    "NonHttpUrlRedirectClientError": "its server redirects to an address that is not on the web",
    "InvalidUrlClientError": "it is not a complete web address",
    "InvalidURL": "it is not a complete web address",
}
_PHRASES = frozenset(HTTPStatus)
_REFUSED = (401, 403)
_NOT_HERE = re.compile(r"load lib(?:jvm|hdfs)|Could not create a OAuth2 access token")
_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    TypeError,
    NotImplementedError,
)


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong, without credentials."""
    text = _of_a_web_site(error) or getattr(error, "strerror", None) or first_line(error)
    return re.sub(r"\s*\(Request ID.*|Detail: .*", "", scrubbed(str(text)))[:200].rstrip(". ")


def reason_to_read_later(error: BaseException, uri: str) -> str:
    """`reason_of` for who reads an image of a store again: a store does not hold the credentials of its URLs."""
    reason = reason_of(error)
    if is_web(uri) and (_answer(error)[1] in _REFUSED or _answer(error.__cause__ or error)[1] in _REFUSED):
        return f"{reason} (if its link was signed, it needs a fresh one)"
    return reason


def _of_a_web_site(error: BaseException) -> str:
    """What a web server answered, if the library's own text says nothing or names the whole address."""
    if type(error).__name__ in _WORDS:
        return _WORDS[type(error).__name__]
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        phrase = next(iter(str(getattr(error, "message", "")).splitlines()), "")
        return f"{status} {phrase or (HTTPStatus(status).phrase if status in _PHRASES else '')}".strip()
    if isinstance(error, TimeoutError) and not str(error).strip():
        return "no answer in time"
    return ""


def _is_redirected_too_often(error: BaseException) -> bool:
    return type(error).__name__ == "TooManyRedirects"


def is_transient(error: Exception, location: str) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, _FINAL) or _is_redirected_too_often(error):
        return False
    if not is_url(location):
        return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS
    code, status = _answer(error)
    if status:
        return status >= 500 or status in (408, 425, 429)
    return not _REFUSALS.search(code)


def is_global(error: Exception) -> bool:
    """Whether every other file would fail with the same error."""
    code, status = _answer(error)
    is_of_a_web_site = hasattr(error, "status")
    return bool(
        isinstance(error, ImportError)
        or _NOT_HERE.search(str(error))
        or _BAD_CREDENTIALS.search(code)
        # from S3, a 403 may concern one file only; an expired token gives a 400
        or (not is_of_a_web_site and status in (400, 401))
    )


def _answer(error: BaseException) -> tuple[str, int]:
    """The server's error code and HTTP status; empty and 0 if there are none."""
    status = getattr(error, "status", None)  # aiohttp's
    found = _STATUS.search(str(error))
    if not isinstance(status, int):
        status = int(found.group(1)) if found else 0
    code = _CODE.search(str(error))
    return (code.group(1) or code.group(2)) if code else "", status
