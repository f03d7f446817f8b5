"""What a failed read means: that the file is at fault, that it may work later, or that nothing would work."""

import errno
import re

from pipeline.errors import first_line
from pipeline.source.access.naming import is_url

_PASSING_ERRNOS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
                   errno.EHOSTUNREACH, errno.ENOTCONN, errno.ECONNRESET, errno.EREMOTEIO}  # fmt: skip
# what pyarrow makes of a server's no: S3's own words, or a status of HTTP
_CODE = re.compile(r"AWS Error ([A-Z_]+)|google::cloud::Status\(([A-Z_]+)")
_REFUSALS = re.compile(r"ACCESS_DENIED|PERMISSION|NO_SUCH|NOT_FOUND|INVALID|MISSING|MALFORMED|VALIDATION|OPT_IN")
_BAD_CREDENTIALS = re.compile(r"EXPIRED|ACCESS_KEY|SIGNATURE|TOKEN|UNRECOGNIZED_CLIENT|UNAUTHENTICATED")
_STATUS = re.compile(r"HTTP status (\d+)")
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
    """One line on what went wrong."""
    text = getattr(error, "strerror", None) or first_line(error)
    return re.sub(r"\s*\(Request ID.*|Detail: .*", "", str(text))[:200].rstrip(". ")


def is_transient(error: Exception, location: str) -> bool:
    """Whether the same call may work a little later."""
    if isinstance(error, _FINAL):
        return False
    if not is_url(location):
        return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS
    code, status = _answer(error)
    if status:
        return status >= 500 or status in (408, 425, 429)
    return not _REFUSALS.search(code)


def is_global(error: Exception) -> bool:
    """Whether any other file would have met the same error."""
    code, status = _answer(error)
    is_of_a_web_site = hasattr(error, "status")
    return bool(
        isinstance(error, ImportError)
        or _NOT_HERE.search(str(error))
        or _BAD_CREDENTIALS.search(code)
        # a 403 of S3 may be one file's; what follows an expired token is a 400
        or (not is_of_a_web_site and status in (400, 401))
    )


def _answer(error: Exception) -> tuple[str, int]:
    """A server's word for what is wrong, and its status of HTTP; empty and 0 if there is none."""
    status = getattr(error, "status", None)  # aiohttp's
    found = _STATUS.search(str(error))
    if not isinstance(status, int):
        status = int(found.group(1)) if found else 0
    code = _CODE.search(str(error))
    return (code.group(1) or code.group(2)) if code else "", status
