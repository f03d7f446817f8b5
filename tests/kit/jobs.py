"""A store that is planned and committed without a model, and sources to change under it."""

import hashlib
import os

import numpy as np

from pipeline.model.spec import spec_metadata
from pipeline.planning import extend as growth
from pipeline.planning.batches import batches_of
from pipeline.planning.content import ContentCheck
from pipeline.planning.extend import extend_plan
from pipeline.source.entry import ImageResult, Source
from pipeline.source.listing import list_source
from pipeline.source.reading import read_image
from pipeline.store.layout import Store
from pipeline.store.parts import part_table, read_part
from pipeline.store.records import StoreRecord
from pipeline.store.tombstones import read_tombstones


class Job:
    """Runs of `embed` on one store, with vectors of no meaning: plan what is new, commit what is planned."""

    def __init__(self, root, spec):
        self.store = Store(root)
        self.store.create_folders()
        self._spec = spec

    @property
    def record(self):
        """As another job would find it."""
        return self.store.read_run()

    def plan(self, source, on_change="stop", captions=None, check=False, source_format="auto", **spec):
        listing = list_source(Source(location=str(source), format=source_format, **spec), captions)
        record = self.store.begin(
            StoreRecord(
                clipsieve_version="0", **spec_metadata(self._spec), columns=listing.spec.columns, shard_capacity=3,
                batch_size=2, max_pixels=1000, threads_per_worker=1, environment={},
            )
        )  # fmt: skip
        committed = self.store.committed(record)
        check = ContentCheck(self.store, committed) if check else None
        done = extend_plan(self.store, record, committed, listing, on_change, check)
        assert done == self.record  # what is written is what was returned
        return done

    def commit(self, limit=None, failing=()):
        """Commit the shards that are not yet, `limit` of them; keys of `failing` get a status of theirs."""
        record = self.record
        committed = self.store.committed(record)
        for shard in [shard for shard in record.shards if shard.ordinal not in committed][:limit]:
            entries = [entry for batch in batches_of(shard, record, self.store) for entry in batch]
            rows = [self._row(entry, dict(failing)) for entry in entries]
            vectors = np.full((len(rows), 4), 0.5, np.float32)
            table = part_table(rows, vectors, shard.first_id, 1, record.encoder, shard.shard_id, record.columns)
            num_ok = sum(row.status == "ok" for row in rows)
            stats = {
                "ordinal": shard.ordinal, "shard_id": shard.shard_id, "fingerprint": record.fingerprint,
                "num_images": len(rows), "num_ok": num_ok, "failed": {}, "timings_s": {}, "finished_at": "",
            }  # fmt: skip
            self.store.commit_shard(table, stats)

    def run(self, source, on_change="stop", **settings):
        self.plan(source, on_change, **settings)
        self.commit()
        return self.living

    @property
    def living(self):
        """Hash of the bytes by key, of rows that a reader sees; every key once."""
        found = {}
        gone = set(read_tombstones(self.store).tolist())
        for stats in self.store.committed(self.record).values():
            table = read_part(self.store.part_of(stats), ["id", "key", "sha256"])
            for row in table.to_pylist():
                if row["id"] not in gone:
                    assert row["key"] not in found, f"{row['key']} is there twice"
                    found[row["key"]] = row["sha256"]
        return found

    def ids(self):
        parts = [self.store.part_of(stats) for stats in self.store.committed(self.record).values()]
        return {row["id"]: row["key"] for part in parts for row in read_part(part, ["id", "key"]).to_pylist()}

    @staticmethod
    def _row(entry, failing):
        status, digest = failing.get(entry.key, "ok"), None
        try:
            digest = (
                None if entry.key in failing else hashed(read_image(entry.uri) if entry.data is None else entry.data)
            )
        except OSError:
            status = "unreadable"
        error = None if status == "ok" else "away"
        return ImageResult(entry.key, entry.uri, entry.caption, None, None, digest, status, error, entry.extra)


def hashed(data):
    return hashlib.sha256(data).hexdigest()


def contents(folder):
    return {path.relative_to(folder).as_posix(): hashed(path.read_bytes()) for path in folder.rglob("*.jpg")}


def spoil(path):
    """Change a byte, and neither size nor time."""
    found, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


class Killed(BaseException):
    """As a signal would end the job."""


def die(*_, **__):
    raise Killed


def kill_before_burying(monkeypatch):
    monkeypatch.setattr(growth, "add_tombstones", die)


def kill_before_planning(monkeypatch):
    monkeypatch.setattr(Store, "add_plan", die)


def kill_before_the_plan_counts(monkeypatch):
    monkeypatch.setattr(Store, "write_plan", die)


KILLS = [kill_before_burying, kill_before_planning, kill_before_the_plan_counts]
