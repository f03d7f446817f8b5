"""The credentials of URLs: taken out when a source is listed, kept in memory, put back when a request is sent.

`KEYRING` holds those of this process. It is SQLite's private temporary table: in memory, or beyond some megabytes in a
file without a name, which ends with the process. The driver hands workers the credentials of their shard.
"""

import re
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import Lock

from pipeline.errors import InputError, StoreError
from pipeline.source.access.naming import is_web
from pipeline.source.entry import ImageEntry
from pipeline.source.secrets import columns_without_credentials, key_without_credentials, without_credentials

_ROOT = re.compile(r"[a-z][a-z0-9+.-]+://[^/?#]*", re.IGNORECASE)
_AT_ONCE = 500


class Keyring:
    """The credentials of URLs, by URL. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._table: sqlite3.Connection | None = None
        self._pass = 0

    def __bool__(self) -> bool:
        return self._table is not None

    def __reduce__(self) -> str:
        """Pickle as the name of the keyring of whatever process loads it. Credentials are never pickled with code."""
        return "KEYRING"

    def take(self, location: str) -> str:
        """Remember the credentials of a location, and return it without them."""
        bare = without_credentials(location)
        if bare != location:
            self.add({_sent(bare): location})
        return bare

    def begin_pass(self) -> None:
        """Begin to read a list or a file: in what follows, a URL without its credentials must name one thing."""
        self._pass += 1

    def take_of_pass(self, location: str) -> str:
        """`take`, for the images of one list or file.

        Raises:
            InputError: If two of them differ only in what counts as credentials: only one of them would be read.
        """
        bare = without_credentials(location)
        if bare != location:
            key = _sent(bare)
            with self._lock:
                row = (
                    self._table
                    and self._table.execute(
                        "SELECT url FROM signed WHERE uri = ? AND pass = ?", (key, self._pass)
                    ).fetchone()
                )
            if row and _sent(row[0]) != _sent(location):
                raise InputError(
                    f"two links differ from {bare} only in parameters that count as credentials (signatures, tokens, "
                    "times), so they cannot be told apart: give each image one link, or rename the parameter"
                )
            self.add({key: location})
        return bare

    def add(self, signed: Mapping[str, str]) -> None:
        """Remember URLs with credentials, by URL without them. The newest credentials of a URL win."""
        if not signed:
            return
        with self._lock:
            self._table = self._table or _new_table()
            try:
                rows = ((bare, url, self._pass) for bare, url in signed.items())
                self._table.executemany("INSERT OR REPLACE INTO signed VALUES (?, ?, ?)", rows)
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
        if not self:
            return url
        found, root = self.of([url]), _root(url)
        bare = _sent(without_credentials(url))
        if bare in found:
            return found[bare]
        return found[root] + url[len(root) :] if root in found else url

    def lacking(self, urls: Iterable[str]) -> list[str]:
        """The URLs whose credentials are not known, nor those of their servers."""
        asked = list(urls)
        found = self.of(asked)
        return [url for url in asked if found.keys().isdisjoint((_sent(without_credentials(url)), _root(url)))]

    def of(self, urls: Iterable[str]) -> dict[str, str]:
        """The credentials of some URLs, as URLs that have them, by URL without them; and those of their servers."""
        if not self:
            return {}
        wanted = {_sent(without_credentials(url)) for url in urls}
        bare, found = sorted(wanted | {_root(url) for url in wanted}), {}
        with self._lock:
            for start in range(0, len(bare) if self._table else 0, _AT_ONCE):
                some = bare[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                found |= dict(self._table.execute(f"SELECT uri, url FROM signed WHERE uri IN ({marks})", some))
        return found


KEYRING = Keyring()
"""The credentials that this process knows."""


def take_source(location: str) -> str:
    """Remember the credentials of a source's location, and return it without them. Its password holds for all in it."""
    KEYRING.take(_root(location))
    return KEYRING.take(location)


def take_credentials(entry: ImageEntry) -> ImageEntry:
    """Remember the credentials of an image's URL, and return the entry without any. See `Keyring.take_of_pass`."""
    KEYRING.take_of_pass(entry.uri)
    return bare_entry(entry)


def bare_entry(entry: ImageEntry) -> ImageEntry:
    """An entry without credentials in its URI, its key and its columns."""
    uri, key = without_credentials(entry.uri), entry.key
    if uri != entry.uri or "://" in key:
        key = key_without_credentials(key)
    extra = columns_without_credentials(entry.extra)
    if (uri, key, extra) == (entry.uri, entry.key, entry.extra):
        return entry
    return replace(entry, uri=uri, key=key, extra=extra)


def _root(url: str) -> str:
    found = _ROOT.match(url)
    return found.group() if found else url


def _sent(url: str) -> str:
    """The part of a URL that is sent: on the web, not what follows a #, such as the name of a member."""
    return url.partition("#")[0] if is_web(url) else url


def _new_table() -> sqlite3.Connection:
    # an empty name means a private table, which no other process can open
    table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    table.execute("PRAGMA journal_mode = OFF")
    table.execute("CREATE TABLE signed (uri TEXT PRIMARY KEY, url TEXT, pass INTEGER) WITHOUT ROWID")
    return table
