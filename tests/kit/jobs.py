"""A store that is planned and committed without a model, and sources that change."""

import hashlib
import os

from pipeline.planning import extend
from pipeline.planning.batches import batches_of
from pipeline.planning.extend import find_changes, write_changes
from pipeline.source.entry import ImageResult, Source, Status
from pipeline.source.listing import list_source
from pipeline.source.reading import read_image
from pipeline.store.layout import Store
from pipeline.store.view import StoreView
from tests.kit.fake_store import commit_fake, fake_record


class Job:
    """Runs of `embed` on one store, with meaningless vectors: plan what is new, commit what is planned."""

    def __init__(self, root, spec):
        self.store = Store(root)
        self.store.create_folders()
        self._spec = spec

    @property
    def record(self):
        """The record as another job would read it."""
        return self.store.read_record()

    def plan(self, source, on_change="stop", captions=None, check=False, source_format="auto", retried=(), **spec):
        listing = list_source(Source(location=str(source), format=source_format, **spec), captions)
        record = self.store.begin(fake_record(self._spec, columns=listing.source.columns))
        before = StoreView.now(self.store, record)
        view = write_changes(before, listing, find_changes(before, listing, on_change, check, retried))
        assert view.record == self.record  # what was returned is what was written
        return view.record

    def commit(self, limit=None, failing=()):
        """Commit at most `limit` missing shards. `failing` maps keys to the statuses they get."""
        record = self.record
        for shard in StoreView.now(self.store, record).missing[:limit]:
            entries = [entry for batch in batches_of(shard, record, self.store) for entry in batch]
            commit_fake(self.store, record, shard, [self._row(entry, dict(failing)) for entry in entries])

    def run(self, source, on_change="stop", **settings):
        self.plan(source, on_change, **settings)
        self.commit()
        return self.living

    @property
    def living(self):
        """Hashes of the bytes by key, for the rows that readers see. Checks that each key occurs once."""
        found = {}
        view = StoreView.now(self.store, self.record)
        for _, table in view.parts(["id", "key", "sha256"]):
            for row in table.to_pylist():
                if row["id"] not in view.deleted:
                    assert row["key"] not in found, f"{row['key']} is there twice"
                    found[row["key"]] = row["sha256"]
        return found

    def ids(self):
        parts = StoreView.now(self.store, self.record).parts(["id", "key"])
        return {row["id"]: row["key"] for _, table in parts for row in table.to_pylist()}

    @staticmethod
    def _row(entry, failing):
        status, digest = failing.get(entry.key, Status.OK), None
        try:
            if entry.key not in failing:
                digest = hashed(read_image(entry.uri) if entry.data is None else entry.data)
        except OSError:
            status = Status.UNREADABLE
        return ImageResult.of(entry, Status(status), None if status == Status.OK else "away", sha256=digest)


def hashed(data):
    return hashlib.sha256(data).hexdigest()


def contents(folder):
    return {path.relative_to(folder).as_posix(): hashed(path.read_bytes()) for path in folder.rglob("*.jpg")}


def spoil(path):
    """Change a byte but keep size and time."""
    found, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


class Killed(BaseException):
    """Ends a job like a signal."""


def die(*_, **__):
    raise Killed


def kill_before_tombstones(monkeypatch):
    monkeypatch.setattr(extend, "add_tombstones", die)


def kill_before_planning(monkeypatch):
    monkeypatch.setattr(Store, "add_plan", die)


def kill_before_the_plan_counts(monkeypatch):
    monkeypatch.setattr(Store, "write_plan", die)


KILLS = [kill_before_tombstones, kill_before_planning, kill_before_the_plan_counts]
