"""A store that is open for search: one view of it, its index, and what is kept for the next search.

Shapes: N rows of the index, n some of them, E embedding width.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.earlier import EarlierSearcher
from indexer.manifest import MANIFEST_FILE
from indexer.opening import open_index
from indexer.searcher import IndexSearcher
from pipeline.errors import ConfigError, InputError, StoreError
from pipeline.model.spec import ClaimedSpec, DeviceChoice
from pipeline.store.tombstones import TOMBSTONES_FILE, deleted_keys
from pipeline.store.view import StoreView
from query.hits.find import find
from query.hits.relevance import ORDINARY_TEXTS, Background
from query.proof.text_vectors import text_vectors
from query.queries.options import Options
from query.queries.vectors import QueryEncoder

_KEPT_MASKS = 4
_ATTEMPTS = 5


class Opened:
    """One state of a store and its index. Its answers never change, so searches of several threads can share it."""

    def __init__(self, view: StoreView, index: IndexSearcher | EarlierSearcher, state: tuple[object, ...]) -> None:
        """Put together what `open` has opened."""
        self.view, self.index, self._state = view, index, state
        self._text_spread: float | None = None
        self._masks, self._lock = dict[str, np.ndarray](), Lock()

    @classmethod
    def open(cls, root: Path, partial: bool, device: DeviceChoice) -> "Opened":
        """Open a store and its index.

        Raises:
            ConfigError: If the device is not available.
            StoreError: If the store or its index cannot be used.
            UnfinishedStore: If shards are missing, or the index is older than the store.
        """
        for _ in range(_ATTEMPTS):
            state = _state_of(root)
            view = StoreView.open(root, partial)
            opened = cls(view, open_index(view, partial, device), state)
            if opened.is_current():  # nothing changed meanwhile, so all that was read belongs to this state
                return opened
        return opened  # `is_current` will say that there is a newer one

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about the index."""
        return (self.index.warning,) if self.index.warning else ()

    @property
    def columns(self) -> list[str]:
        """The columns of the metadata."""
        if isinstance(self.index, IndexSearcher):
            return self.index.rows.schema.names
        return ["key", "uri", "caption", "width", "height", *self.view.record.columns]

    @cached_property
    def background(self) -> Background | None:
        """What random images of the store score. None for an index of an earlier format."""
        return Background(self.index) if isinstance(self.index, IndexSearcher) else None

    @cached_property
    def version(self) -> str:
        """Another one for each state of the store and its index."""
        return hashlib.sha256(repr(self._state).encode()).hexdigest()[:12]

    def text_spread(self, queries: QueryEncoder) -> float | None:
        """How much the scores of an ordinary text spread over the store; see `query.hits.relevance`.

        The vectors of such texts are kept in the user's cache directory. None for an index of an earlier format.

        Args:
            queries: Embeds the texts, if they are not in the cache.
        """
        if self._text_spread is None and self.background is not None:
            spec = self.view.record.encoder
            if isinstance(spec, ClaimedSpec) and spec.known_text_space is None:  # the claim says nothing of the weights
                vectors_QE = queries.encode_texts(list(ORDINARY_TEXTS))
            else:
                vectors_QE = text_vectors(ORDINARY_TEXTS, spec.text_space, lambda: queries, math.inf)
            self._text_spread = float(self.background.spreads(vectors_QE).mean())
        return self._text_spread

    def warm_up(self, before: "Opened", queries: QueryEncoder) -> None:
        """Do what an earlier state has done, so that the first search of this one takes no longer than its last.

        Raises:
            InputError: If the model cannot be loaded.
            StoreError: If the index is damaged.
        """
        if not isinstance(self.index, IndexSearcher) or not self.index.num_rows:
            return
        if before._text_spread is not None:
            self.text_spread(queries)
        with before._lock:
            conditions = list(before._masks)
        # a row as the query: the first search reads the pages of the index, and what FAISS keeps for conditions
        query_1E = self.index.rows.vectors(np.zeros(1, np.int64))
        for where in ((), *((condition,) for condition in conditions)):
            try:
                allowed_N = self.allowed(where)
            except ConfigError:  # the column is no longer there
                continue
            found = find(self.index, self.background, query_1E, Options(), allowed_N)
            self.metadata(found.ids)

    def is_current(self) -> bool:
        """Whether neither the index nor the deleted rows have changed on disk."""
        return _state_of(self.view.root) == self._state

    def allowed(self, where: Sequence[str]) -> np.ndarray | None:
        """Which rows (bool [N], by position) all of some conditions allow; None if there are no conditions.

        Raises:
            ConfigError: If one cannot be read; see `query.filters`.
        """
        masks = [self._recent_mask(condition) for condition in where]
        return np.logical_and.reduce(masks) if masks else None

    def metadata(self, ids: np.ndarray) -> pa.Table:
        """All columns of rows, in the order of `ids` (int64 [n])."""
        return self.index.metadata(ids, self.columns)

    def ids_of(self, like: Sequence[int | str]) -> np.ndarray:
        """The ids (int64 [n]) of images that are named by id or key.

        Raises:
            InputError: If one is not in the index, or was deleted.
        """
        return np.array([self._id_of(one) for one in like], np.int64)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Vectors (float32 [n, E]) of rows that are in the index."""
        if not len(ids):
            return np.empty((0, self.view.record.encoder.embedding_dim), np.float32)
        return self._searcher("images of the store as queries").vectors(ids)

    def has_keys(self, keys: Sequence[str]) -> list[bool | None]:
        """Whether an image with each of some keys can be found; None if an index of an earlier format cannot tell."""
        if not isinstance(self.index, IndexSearcher):
            return [None] * len(keys)
        found, start, wanted = set[str](), 0, pa.array(keys, pa.string())
        for batch in self.index.rows.batches(["key"]) if keys else ():
            places = np.flatnonzero(pc.is_in(batch["key"], wanted.cast(batch["key"].type)))
            live = places[~np.isin(start + places, self.index.dead)]
            found.update(batch["key"].take(pa.array(live)).to_pylist())
            start += batch.num_rows
        return [key in found for key in keys]

    def _id_of(self, one: int | str) -> int:
        index, root = self._searcher("images of the store as queries"), self.view.root
        if isinstance(one, str):
            positions = np.flatnonzero(self._mask("key = '{}'".format(one.replace("'", "''"))))
            is_deleted = one in deleted_keys(self.view.store)
        else:
            positions = index.rows.positions(np.array([one], np.int64))
            is_deleted = bool(np.isin(one, self.view.deleted))
        live = positions[~np.isin(positions, index.dead)]
        if len(live):
            return int(index.rows.ids(live[-1:])[0])
        what = f"key {one!r}" if isinstance(one, str) else f"id {one}"
        if is_deleted:
            raise InputError(f"the image with the {what} was deleted from {root}; name one that is still there")
        raise InputError(f"the index of {root} has no image with the {what}; its hits show ids and keys")

    def _recent_mask(self, condition: str) -> np.ndarray:
        """Not by `functools.lru_cache`, whose cycle of references would keep mapped files until Python looks for it."""
        with self._lock:
            mask = self._masks.pop(condition, None)
        if mask is None:
            mask = self._mask(condition)
        with self._lock:
            self._masks[condition] = mask  # the most recent one is the last
            while len(self._masks) > _KEPT_MASKS:
                del self._masks[next(iter(self._masks))]
        return mask

    def _mask(self, condition: str) -> np.ndarray:
        from query.filters.where import parse_where

        rows = self._searcher("conditions").rows
        return parse_where(condition, rows.schema).mask(rows)

    def _searcher(self, what: str) -> IndexSearcher:
        if isinstance(self.index, IndexSearcher):
            return self.index
        raise StoreError(
            f"the index of {self.view.root} has an earlier format, which cannot answer with {what}; run `clipsieve "
            f"index {self.view.root}`"
        )


def _state_of(root: Path) -> tuple[object, ...]:
    """What tells whether the index or the deleted rows are still the same."""
    found = []
    for path in (root / "index" / MANIFEST_FILE, root / TOMBSTONES_FILE, root / "run.json"):
        try:
            status = path.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)
