"""URLs without what is secret in them: the parameters of signed links, and passwords.

Two links to one image differ in their credentials, but they name the same image: nothing that is stored or shown has
them.
"""

import re
from typing import Any

PREFIXES = ("x-amz-", "x-goog-", "x-oss-")
"""Parameters that begin so are credentials: links signed for S3, Google Cloud Storage and Alibaba OSS."""

NAMES = frozenset(
    [
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "signature", "expires"),  # S3, Google and OSS, older
        *("policy", "key-pair-id"),  # CloudFront
        *("sig", "se", "sp", "sv", "sr", "st"),  # Azure
        *("token", "access_token"),
    ]
)
"""Parameters that are credentials, in lower case."""

NAMES_BESIDE_SIG = frozenset("spr sip ss srt si ses skoid sktid skt ske sks skv saoid suoid scid sdd".split())
"""Further parameters of Azure's signed links. Without `sig`, they can mean anything."""

NEEDS_FRESH_LINKS = (
    "its link was signed, and a store does not hold credentials: only `clipsieve embed` with a list of fresh links can "
    "read it"
)

_PASSWORD = re.compile(r"^([a-z][a-z0-9+.-]+://)[^/?#@]*:[^/?#]*@", re.IGNORECASE)
_WEB = re.compile(r"https?://", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://[^\s'\"<>]+", re.IGNORECASE)


def without_credentials(location: str) -> str:
    """A location without the credentials among its parameters, and without a user's password."""
    if "://" not in location or not ("@" in location or "?" in location):
        return location
    location = _PASSWORD.sub(r"\1", location)
    return _without_parameters(location) if _WEB.match(location) else location


def scrubbed(text: str) -> str:
    """A text for people, without the credentials of the URLs in it."""
    return _ADDRESS.sub(lambda found: without_credentials(found.group()), text) if "://" in text else text


def key_without_credentials(key: str) -> str:
    """The key of something whose URL has credentials: it can be that URL, or the part of it that a list names."""
    return _without_parameters(_PASSWORD.sub(r"\1", key))


def columns_without_credentials(extra: dict[str, Any] | None) -> dict[str, Any] | None:
    """The values of carried columns, with the credentials taken out of the URLs in them."""
    return extra and {name: scrubbed(value) if isinstance(value, str) else value for name, value in extra.items()}


def _without_parameters(text: str) -> str:
    before, hash_mark, inside = text.partition("#")
    path, mark, query = before.partition("?")
    if not mark:
        return text
    pairs = [(pair, pair.partition("=")[0].lower()) for pair in query.split("&")]
    unwanted = NAMES | NAMES_BESIDE_SIG if any(name == "sig" for _, name in pairs) else NAMES
    kept = [pair for pair, name in pairs if name not in unwanted and not name.startswith(PREFIXES)]
    if len(kept) == len(pairs):
        return text
    return path + ("?" + "&".join(kept) if kept else "") + hash_mark + inside
