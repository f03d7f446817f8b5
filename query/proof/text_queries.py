"""The text queries of a store: from the user's file, or built-in texts, embedded by the store's own text tower."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from indexer.proof.queries import TextQueries
from indexer.proof.query_file import MIN_QUERIES, halves, has_vectors, make_text_queries, read_query_vectors, vectors_of
from pipeline.errors import ClipsieveError, first_line
from pipeline.model.encode import Encoder
from pipeline.model.spec import EMBEDDED, ClaimedSpec, DeviceChoice, EncoderSpec
from pipeline.store.view import StoreView
from query.proof.generator import built_in_texts, scene_texts
from query.proof.text_vectors import text_vectors
from query.queries.texts import read_query_texts
from query.text import text_encoder

LIMIT_S = 300.0
"""Seconds that embedding the texts may take."""


def text_queries(
    view: StoreView,
    path: Path | None = None,
    *,
    limit_s: float = LIMIT_S,
    device: DeviceChoice = "auto",
    on_warning: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[int], None] = lambda num_texts: None,
) -> TextQueries | str:
    """Text vectors to tune and to prove an index with.

    Of a file, half of the queries prove, but at least 1,000 of them if it has that many. The others tune. Built-in
    texts stand in for the file, and tune in place of what a file with fewer than 2,000 queries lacks.

    Args:
        view: The store.
        path: Queries of the user: texts (see `read_query_texts`), or vectors in a Parquet column `embedding`.
        limit_s: Seconds that embedding the texts may take; those that would take longer are left out, and the result's
            source says so.
        device: Where to embed; `auto` is the CPU.
        on_warning: Called with what a user should know about the file.
        on_progress: Called after each batch with the number of texts embedded in it.

    Returns:
        The queries. If the store has no text tower that can be used, and no queries were given, the reason.

    Raises:
        InputError: If the file cannot be used.
        ClipsieveError: If the file has texts, and the text tower cannot be used.
    """
    made = _Maker(view.record.encoder, device, limit_s, on_warning, on_progress)
    if path is None:
        try:
            return made.from_built_in()
        except ClipsieveError as error:
            return f"the store's text tower cannot be used: {first_line(error)}"
    return made.from_vectors(path) if has_vectors(path) else made.from_texts(path)


@dataclass(frozen=True, slots=True)
class _Embedded:
    vectors_QE: np.ndarray
    name: str
    """What they are, for people."""


@dataclass(frozen=True)
class _Maker:
    spec: EncoderSpec | ClaimedSpec
    device: DeviceChoice
    limit_s: float
    on_warning: Callable[[str], None]
    on_progress: Callable[[int], None]

    def from_built_in(self) -> TextQueries:
        texts = self._built_in_texts(2 * MIN_QUERIES)
        proving = self._embed([], texts[1::2])
        tuning = self._embed([], texts[::2])
        return make_text_queries(proving.vectors_QE, tuning.vectors_QE, proving.name, tuning.name)

    def from_texts(self, path: Path) -> TextQueries:
        texts = read_query_texts(path)
        order = np.random.default_rng(0).permutation(len(texts))  # files are often sorted
        texts = [texts[i] for i in order]
        num_proving = _num_proving(len(texts))
        proving = self._embed(texts[:num_proving], [], path)
        tuning = self._embed(texts[num_proving:], self._others(texts, MIN_QUERIES - len(texts) + num_proving), path)
        return make_text_queries(proving.vectors_QE, tuning.vectors_QE, proving.name, tuning.name)

    def from_vectors(self, path: Path) -> TextQueries:
        vectors_QE = read_query_vectors(path, self.spec.embedding_dim, self.spec.text_space)
        num_proving = _num_proving(len(vectors_QE))
        num_own = len(vectors_QE) - num_proving
        if num_own >= MIN_QUERIES:
            return halves(path, vectors_QE)
        try:
            others = self._embed([], self._others([], MIN_QUERIES - num_own))
        except ClipsieveError as error:
            self.on_warning(
                f"{path.name} both tunes and proves the index: built-in texts cannot tune it, because the store's text "
                f"tower cannot be used ({first_line(error)})"
            )
            return halves(path, vectors_QE)
        own = f"{vectors_of(path, num_own)} and " if num_own else ""
        return make_text_queries(
            vectors_QE[:num_proving],
            np.concatenate([vectors_QE[num_proving:], others.vectors_QE]),
            vectors_of(path, num_proving),
            own + others.name,
        )

    def _others(self, texts: list[str], num_texts: int) -> list[str]:
        """Built-in texts that are not among these."""
        if num_texts <= 0:
            return []
        known = set(texts)
        return [text for text in self._built_in_texts(num_texts + len(texts)) if text not in known][:num_texts]

    def _built_in_texts(self, num_texts: int) -> list[str]:
        # the built-in model knows only the words of its scenes
        return (scene_texts if self.spec.source.model == EMBEDDED else built_in_texts)(num_texts)

    def _embed(self, own: list[str], built_in: list[str], path: Path | None = None) -> _Embedded:
        """Embed the user's texts and built-in ones, in half of the time: queries that tune take the other half."""

        def encoder() -> Encoder:
            for warning in self._encoder.tokenize.count_cut(own, "query", "queries")[1]:
                self.on_warning(f"{path}: {warning}")
            return self._encoder

        texts = [*own, *built_in]
        vectors_QE = text_vectors(texts, self._text_space, encoder, self.limit_s / 2, self.on_progress)
        num_own = min(len(own), len(vectors_QE))
        num_others = len(vectors_QE) - num_own
        names = [
            f"{num_own:,} text{'s' * (num_own != 1)} of {path and path.name}" if num_own else "",
            f"{num_others:,} built-in text{'s' * (num_others != 1)}" if num_others else "",
        ]
        name = " and ".join(filter(None, names))
        if len(vectors_QE) < len(texts):
            name += f" (of {len(texts):,}; more would take over {self.limit_s / 2:g} s to embed)"
        return _Embedded(vectors_QE, name)

    @cached_property
    def _text_space(self) -> str:
        """Of the vectors. What an import claims without knowing it says nothing of the weights."""
        is_unknown = isinstance(self.spec, ClaimedSpec) and self.spec.known_text_space is None
        return self._encoder.text_space if is_unknown else self.spec.text_space

    @cached_property
    def _encoder(self) -> Encoder:
        return text_encoder(self.spec, self.device)


def _num_proving(num_queries: int) -> int:
    """How many of a user's queries prove the index."""
    return max(min(num_queries, MIN_QUERIES), num_queries - num_queries // 2)
