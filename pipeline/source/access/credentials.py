"""Credentials in URLs: taken out before anything is stored or shown, kept in memory, put back when a request is sent.

Two links to one image differ in their credentials, but they name the same image: keys and URIs have none. `KEYRING`
holds those of this process. It is SQLite's private temporary table: in memory, or beyond some megabytes in a file
without a name, which ends with the process. The driver hands workers the credentials of their shard.
"""

import re
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import Lock
from typing import Any

from pipeline.errors import StoreError
from pipeline.source.access.naming import is_web
from pipeline.source.entry import ImageEntry

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

_PASSWORD = re.compile(r"^([a-z][a-z0-9+.-]+://)[^/?#@]*:[^/?#]*@", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://[^\s'\"<>]+", re.IGNORECASE)
_ROOT = re.compile(r"[a-z][a-z0-9+.-]+://[^/?#]*", re.IGNORECASE)
_AT_ONCE = 500


def without_credentials(location: str) -> str:
    """A location without the credentials among its parameters, and without a user's password."""
    if "://" not in location:
        return location
    location = _PASSWORD.sub(r"\1", location)
    return _without_parameters(location) if is_web(location) else location


def scrubbed(text: str) -> str:
    """A text for people, without the credentials of the URLs in it."""
    return _ADDRESS.sub(lambda found: without_credentials(found.group()), text) if "://" in text else text


class Keyring:
    """The credentials of URLs, by URL. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._table: sqlite3.Connection | None = None

    def __bool__(self) -> bool:
        return self._table is not None

    def take(self, location: str) -> str:
        """Remember the credentials of a location, and return it without them."""
        bare = without_credentials(location)
        if bare != location:
            self.add({bare: location})
        return bare

    def add(self, signed: Mapping[str, str]) -> None:
        """Remember URLs with credentials, by URL without them. The newest credentials of a URL win."""
        if not signed:
            return
        with self._lock:
            self._table = self._table or _new_table()
            try:
                self._table.executemany("INSERT OR REPLACE INTO signed VALUES (?, ?)", signed.items())
            except sqlite3.Error as error:
                raise StoreError(
                    f"cannot keep the credentials of URLs in {tempfile.gettempdir()}: {error}; free up space there, or "
                    "set TMPDIR to a larger disk"
                ) from error

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            if self._table:
                self._table.close()
            self._table = None

    def signed(self, url: str) -> str:
        """The URL to send: with credentials if they are known, else as it is."""
        if self._table is None:
            return url
        found = self.of([url])
        if found:
            return next(iter(found.values()))
        root = _ROOT.match(url)  # a password holds for everything on its server
        login = self.of([root.group()]) if root else {}
        return next(iter(login.values())) + url[root.end() :] if login else url

    def of(self, urls: Iterable[str]) -> dict[str, str]:
        """Those of the URLs that have credentials, by URL without them."""
        if self._table is None:
            return {}
        bare, found = [without_credentials(url) for url in urls], {}
        with self._lock:
            for start in range(0, len(bare), _AT_ONCE):
                some = bare[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                found |= dict(self._table.execute(f"SELECT uri, url FROM signed WHERE uri IN ({marks})", some))
        return found


KEYRING = Keyring()
"""The credentials that this process knows."""


def take_source(location: str) -> str:
    """Remember the credentials of a source's location, and return it without them. Its password holds for all in it."""
    root = _ROOT.match(location)
    if root:
        KEYRING.take(root.group())
    return KEYRING.take(location)


def take_credentials(entry: ImageEntry) -> ImageEntry:
    """Remember the credentials of an image's URL, and return the entry without any, in its key and columns either."""
    uri = KEYRING.take(entry.uri)
    key = entry.key
    if uri != entry.uri or "://" in key:  # a key can be the part of the URL that its list names
        key = _without_parameters(_PASSWORD.sub(r"\1", key))
    extra = entry.extra and {name: _bare_value(value) for name, value in entry.extra.items()}
    if (uri, key, extra) == (entry.uri, entry.key, entry.extra):
        return entry
    return replace(entry, uri=uri, key=key, extra=extra)


def _bare_value(value: Any) -> Any:
    return scrubbed(value) if isinstance(value, str) else value


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


def _new_table() -> sqlite3.Connection:
    # an empty name means a private table, which no other process can open
    table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    table.execute("PRAGMA journal_mode = OFF")
    table.execute("CREATE TABLE signed (uri TEXT PRIMARY KEY, url TEXT) WITHOUT ROWID")
    return table
