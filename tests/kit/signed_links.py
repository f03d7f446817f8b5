"""A web server for signed links, which must arrive exactly as they were signed."""

import hashlib
from contextlib import contextmanager
from typing import ClassVar

import pyarrow.parquet as pq

from tests.kit.web_server import Handler, serving

SECRET = "se%2Bcret"  # the escape is part of it


def signature_of(target):
    """What `Site` expects of a link to a raw path, which may have a query."""
    return hashlib.sha256(f"{SECRET}{target}".encode()).hexdigest()[:16]


def signed(url, target, number=1):
    """A link whose signature covers every character of the target; links of another number have another one."""
    separator = "&" if "?" in target else "?"
    return f"{url}{target}{separator}X-Amz-Date={number}&X-Amz-Signature={signature_of(f'{target}/{number}')}"


class Site(Handler):
    """Serves files by raw path, to those who have signed exactly that path."""

    files: ClassVar = {}
    seen: ClassVar = []

    def look(self, path):
        Site.seen.append(path)
        if path.startswith("/moved"):
            return 302, b"", ("Location", Site.files[path])
        bare, _, rest = path.partition("X-Amz-Date=")
        number, _, signature = rest.partition("&X-Amz-Signature=")
        target = bare.rstrip("?&")
        if signature != signature_of(f"{target}/{number}"):
            return 403, b"no"
        data = Site.files.get(target)
        if data is None:
            return 404, b"none"
        found = self.headers["Range"]
        if not found:
            return 200, data, ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        first, last = found.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        return 206, part, ("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")


@contextmanager
def serving_signed():
    """Run the server, without any files yet. Yields its URL."""
    Site.files.clear()
    Site.seen.clear()
    with serving(Site) as url:
        yield url


def assert_nothing_secret_in(folder):
    """Look for credentials in every file of a store."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        text = data + (repr(pq.read_table(path).to_pydict()).encode() if path.suffix == ".parquet" else b"")
        assert b"X-Amz" not in text, path
        assert b"Signature" not in text, path
