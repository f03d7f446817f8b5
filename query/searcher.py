"""Search a store: texts, images, images of the store and vectors, in Python and for the command line.

    with Searcher.open("store") as searcher:
        for hit in searcher.search("a dog in snow", k=10, where="width > 512"):
            print(hit.rank, hit.key, hit.relevance)

A request becomes a unit vector; the index finds the nearest of the allowed rows; relevance is added, near-duplicates
are left out, and the metadata of what remains is read.

Shapes: Q queries, E embedding width.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ConfigError, InputError
from pipeline.model.spec import ClaimedSpec, DeviceChoice, EncoderSpec
from query.hits.find import find
from query.hits.hits import Hit, Hits, Timings
from query.hits.table import tables_of
from query.opened import Opened
from query.queries.options import Options
from query.queries.request import Request
from query.queries.vectors import QueryEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

Like = Hit | int | str


class Searcher:
    """A store that answers. Safe to use from several threads. The towers are loaded on their first use, and stay."""

    def __init__(
        self, store: Path, partial: bool = False, device: DeviceChoice = "auto", kept_texts: int = 1_024
    ) -> None:
        """Open a store; see `open`."""
        self._root, self._device, self._kept_texts = store, device, kept_texts
        opened = Opened.open(store, partial, device)
        # one name for both, so that no search sees the one of today with the other of yesterday
        self._current: tuple[Opened, QueryEncoder] | None = (opened, self._towers_of(opened))
        self._changing = Lock()

    @classmethod
    def open(
        cls,
        store: str | Path,
        *,
        partial: bool = False,
        device: DeviceChoice = "auto",
        kept_texts: int = 1_024,
    ) -> "Searcher":
        """Open an indexed store.

        Args:
            store: Its folder.
            partial: Accept an unfinished store, or an index that is older than its store.
            device: Where to embed queries and to search. `auto` embeds on the CPU, and searches on a GPU if FAISS sees
                one.
            kept_texts: Of how many recent texts the vectors are kept in memory.

        Raises:
            ConfigError: If the device is not available.
            StoreError: If the store or its index cannot be used.
            UnfinishedStore: If shards are missing, or the index is older than the store.
        """
        return cls(Path(store), partial, device, kept_texts)

    def __enter__(self) -> "Searcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store and free the towers. Searches that are under way end as usual."""
        with self._changing:
            self._current = None

    @property
    def current(self) -> tuple[Opened, QueryEncoder]:
        """What is open: one state of the store, and the towers of its model.

        Raises:
            ConfigError: If this is closed.
        """
        current = self._current
        if current is None:
            raise ConfigError(f"the Searcher of {self._root} is closed; open another one with Searcher.open")
        return current

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return self._root

    @property
    def encoder(self) -> EncoderSpec | ClaimedSpec:
        """What made the vectors of the store."""
        return self.current[0].view.record.encoder

    @property
    def columns(self) -> list[str]:
        """Columns that `where` can use, besides `id`."""
        return self.current[0].columns

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about the index."""
        return self.current[0].warnings

    def __len__(self) -> int:
        """Images that can be found."""
        return self.current[0].index.num_rows

    def refresh(self) -> bool:
        """Open the store again if its index was replaced or images were deleted. Other threads may search meanwhile.

        What searches had to wait for with the old state is done before the new one takes its place. New images without
        an index change nothing, and do not keep deletions from being seen.

        Returns:
            Whether anything was new.

        Raises:
            ClipsieveError: As `open`, or if the model, which is another one now, cannot be loaded. What was open stays
                open.
        """
        with self._changing:  # of two threads, the slower one may not bring back an older state
            before, queries = self.current
            if before.is_current():
                return False
            opened = Opened.open(self._root, True, self._device)  # what is open may be older than the store, too
            if opened.view.record.encoder != queries.spec:
                queries = self._towers_of(opened)
            opened.warm_up(before, queries)
            self._current = opened, queries
        return True

    def search(
        self,
        query: str | None = None,
        k: int = 10,
        *,
        image: "str | Path | bytes | Image | None" = None,
        like: Like | Sequence[Like] = (),
        vector: np.ndarray | None = None,
        where: str | Sequence[str] = (),
        unique: float | bool = False,
        min_relevance: float | None = None,
        templates: Sequence[str] = (),
    ) -> Hits:
        """Find the images that best match a text, an image, images of the store, or a vector, or several of these.

        Args:
            query: A text, or a weighted sum such as `"beach" + 0.5*"sunset" - "people"`.
            k: Number of hits; there are fewer if the store has no more.
            image: A path or URL, the bytes of a file, or an opened image.
            like: Hits, ids (int) or keys (str) of images of the store. They are not among the hits.
            vector: A vector [E] of the store's model, of any length.
            where: Only images for which this condition holds, or all of several; see `query.filters`.
            unique: Leave out near-duplicates: hits whose cosine to a better one is at least this; True stands for
                `DUPLICATE_COSINE`.
            min_relevance: Leave out hits with less relevance; see `query.hits.relevance`.
            templates: Sentences with {} for the text; their vectors are averaged.

        Raises:
            ConfigError: If an argument is out of range, or `where` cannot be read.
            InputError: If the query is empty, the model cannot be loaded, or an image cannot be decoded or is not in
                the store.
            StoreError: If the store's model is no longer the one that made it.
        """
        like = [like] if isinstance(like, Like) else like
        request = Request(
            text=query,
            templates=tuple(templates),
            images=() if image is None else (image,),
            like=tuple(self._id_of(one) if isinstance(one, Hit) else one for one in like),
            vector=vector,
            options=Options(k=k, where=_all_of(where), unique=unique, min_relevance=min_relevance),
        )
        return self.ask(request)

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        where: str | Sequence[str] = (),
        unique: float | bool = False,
        min_relevance: float | None = None,
        templates: Sequence[str] = (),
    ) -> list[Hits]:
        """Answer several texts at once, which takes less time than one by one. Arguments and errors as for `search`."""
        options = Options(k=k, where=_all_of(where), unique=unique, min_relevance=min_relevance)
        return self.ask_all([Request(text=text, templates=tuple(templates), options=options) for text in queries])

    def has_keys(self, keys: Sequence[str]) -> list[bool | None]:
        """Whether the store has an image with each of these keys that can be found; None if it cannot tell."""
        return self.current[0].has_keys(keys)

    def ask(self, request: Request) -> Hits:
        """Answer a request."""
        return self.ask_all([request])[0]

    def ask_all(self, requests: Sequence[Request]) -> list[Hits]:
        """Answer requests together, which takes less time than one by one. All are answered by one state of the store.

        Raises:
            ClipsieveError: As `search`, if one of them cannot be answered.
        """
        if not requests:
            return []
        (opened, queries), clock = self.current, _Clock()
        liked = [opened.ids_of(request.like) for request in requests]
        vectors_QE, warnings = queries.vectors(requests, [opened.vectors(ids) for ids in liked])
        text_spread = opened.text_spread(queries) if any(request.is_text for request in requests) else None
        spread_Q = np.array([text_spread if request.is_text else None for request in requests], np.float32)
        embed_ms, answers = clock.lap(), dict[int, Hits]()
        state = (opened.version, opened.index.num_rows)
        for places in _with_same_options(requests):
            options = requests[places[0]].options
            allowed_N = opened.allowed(options.where)
            filter_ms = clock.lap()
            excluded = [liked[place] for place in places]
            found = find(
                opened.index, opened.background, vectors_QE[places], options, allowed_N, excluded, spread_Q[places]
            )
            index_ms = clock.lap()
            tables = tables_of(found, opened.metadata(found.ids), len(places))
            timings = Timings(embed=embed_ms, filter=filter_ms, index=index_ms, hits=clock.lap())
            for place, table in zip(places, tables, strict=True):
                known = (*opened.warnings, *warnings[place])
                answers[place] = Hits(requests[place], table, timings, self, known, *state)
        return [answers[place] for place in range(len(requests))]

    def _towers_of(self, opened: Opened) -> QueryEncoder:
        view = opened.view
        return QueryEncoder(view.record.encoder, self._device, self._kept_texts, view.store.calibration_path)

    def _id_of(self, hit: Hit) -> int:
        """The id of a hit; another store would have another image by the same id."""
        opened, _ = self.current
        [id_] = opened.ids_of([hit.id])
        key = opened.index.metadata(np.array([id_]), ["key"])["key"][0].as_py()
        if key != hit.key:
            raise InputError(
                f"the image {hit.id} of {self._root} has the key {key!r}, and the hit has {hit.key!r}; ask the store "
                "that the hit is of"
            )
        return hit.id


def _all_of(where: str | Sequence[str]) -> tuple[str, ...]:
    return (where,) if isinstance(where, str) else tuple(where)


def _with_same_options(requests: Sequence[Request]) -> list[list[int]]:
    """The places of requests that differ only in their queries."""
    groups: dict[tuple[Options, float | None], list[int]] = {}
    for place, request in enumerate(requests):
        # the cosine as well, because True equals 1.0
        groups.setdefault((request.options, request.options.duplicate_cosine), []).append(place)
    return list(groups.values())


class _Clock:
    """Milliseconds from lap to lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Since the last lap."""
        started, self._last = self._last, time.perf_counter()
        return 1000 * (self._last - started)
