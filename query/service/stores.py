"""The stores that are served: opened at the start, and opened again when they change."""

import asyncio
import logging
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from indexer.searcher import IndexSearcher
from pipeline.errors import ClipsieveError, ConfigError
from pipeline.model.spec import ClaimedSpec
from pipeline.source.access.naming import is_url
from query.hits.hits import Hits
from query.queries.request import Request
from query.searcher import Searcher
from query.service.asking import Asker
from query.service.metrics import Metrics
from query.service.problems import ProblemError
from query.service.questions import PRIVATE_COLUMN
from query.service.settings import ServeSettings

_log = logging.getLogger("clipsieve.serve")
WARM_TEXT = "a photo"
FEW_SHARED = 0.5
"""Two stores that share fewer of their images are not worth comparing."""
SAMPLED_KEYS = 1_000


class ServedStore:
    """One store by its name."""

    def __init__(self, name: str, searcher: Searcher, metrics: Metrics) -> None:
        """Serve an open store."""
        self.name, self.searcher, self._metrics = name, searcher, metrics
        self._asker = Asker(name, searcher, metrics)
        self._fault: type[Exception] | None = None
        self._note_index()

    async def ask(self, request: Request) -> Hits:
        """Answer a request.

        Raises:
            ProblemError: If the query is wrong, or the store cannot answer it.
        """
        try:
            return await self._asker.ask(request)
        except ClipsieveError as error:
            raise self.problem(error) from error

    def problem(self, error: ClipsieveError) -> ProblemError:
        """An error without the folders of the store and of its model: clients need not know them."""
        found, detail = ProblemError.of(error), str(error)
        root, model = self.searcher.store, self.searcher.encoder.source.model
        shown = {str(path): self.name for path in (root, root.absolute(), root.resolve())} | {model: self.model}
        for folder in sorted(shown, key=len, reverse=True):
            # as a whole: it may be just "."
            detail = re.sub(rf"(?<![\w./]){re.escape(folder)}(?![\w-])", lambda _: shown[folder], detail)  # noqa: B023
        return ProblemError(found.status, detail)

    @property
    def gmacs(self) -> float | None:
        """Multiply-adds of the image tower for one image, in billions. None until it is loaded, or if nobody knows."""
        return self.searcher.current[1].gmacs

    def row(self, id_: int) -> dict[str, Any]:
        """The metadata of an image, and the `version` of what it was read from.

        Raises:
            ProblemError: 404 if the store does not have it, or it was deleted.
        """
        try:
            opened, _ = self.searcher.current  # once: the row and the version belong together
            return {**opened.metadata(opened.ids_of([id_])).to_pylist()[0], "version": opened.version}
        except ClipsieveError as error:
            raise ProblemError(404, self.problem(error).detail) from error

    def warm_up(self, images: bool) -> None:
        """Load what the first search would otherwise wait for.

        Args:
            images: Also the image tower. Texts can be asked without it, so it is no error if it cannot be loaded.

        Raises:
            ClipsieveError: If the model cannot be loaded.
        """
        self.searcher.search(WARM_TEXT, k=1)
        if images:
            _, queries = self.searcher.current
            try:
                queries.pixels(np.zeros((queries.preprocess.height, queries.preprocess.width, 3), np.uint8))
            except ClipsieveError as error:
                _log.warning("%s: images cannot be searched for: %s", self.name, error)

    def refresh(self) -> bool:
        """Open the store again if it changed. Returns whether it did. The old state answers if that fails."""
        try:
            is_new = self.searcher.refresh()
        except Exception as error:  # also a fault of ours: it must not end `keep_fresh`
            self._note_fault(error)
            return False
        self._fault = None
        if is_new:
            self._metrics.swaps.labels(self.name).inc()
            self._note_index()
            _log.info("%s: a new index is in use; %d images can be found", self.name, len(self.searcher))
        return is_new

    def _note_fault(self, error: Exception) -> None:
        """Log once, not at each look, why the new state cannot be used. While `embed` runs, every look finds one."""
        if self._fault is not type(error):
            self._fault = type(error)
            self._metrics.failed_swaps.labels(self.name).inc()
            reason = error if isinstance(error, ClipsieveError) else repr(error)
            _log.warning("%s: the new state cannot be opened, so the old index still answers: %s", self.name, reason)

    def close(self) -> None:
        """Let go of the store."""
        self._asker.close()
        self.searcher.close()

    def _note_index(self) -> None:
        opened = self.searcher.current[0]
        self._metrics.index(self.name, self.recipe, opened.version, opened.index.num_rows)

    @property
    def columns(self) -> list[str]:
        """What `where` can use, besides `id`."""
        return [name for name in self.searcher.columns if name != PRIVATE_COLUMN]

    @property
    def recipe(self) -> str:
        """The kind of index, as FAISS's index factory names it."""
        recipe = getattr(self.searcher.current[0].index, "recipe", None)
        return recipe.factory if recipe else "an earlier format"

    @property
    def policy(self) -> str:
        """Which images it has: how their tower was pruned."""
        spec = self.searcher.encoder
        if isinstance(spec, ClaimedSpec):
            return "imported"
        return spec.policy.name if spec.policy else "none"

    @cached_property
    def model(self) -> str:
        """The model, without the folder that it may be in."""
        model = self.searcher.encoder.source.model
        return Path(model).name if model.startswith("local-dir:") else model


def public_uri(uri: str) -> str | None:
    """A URI that clients may see: none of a file of this machine."""
    return uri if is_url(uri) and not uri.startswith("file:") else None


class Stores:
    """All served stores, by name."""

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        """Open them.

        Raises:
            ClipsieveError: As `Searcher.open`.
        """
        folders = [settings.store] if settings.store2 is None else [settings.store, settings.store2]
        self._by_name: dict[str, ServedStore] = {}
        for name, folder in zip(_names(folders), folders, strict=True):
            searcher = Searcher.open(
                folder, partial=settings.partial, device=settings.device, kept_texts=settings.text_cache
            )
            self._by_name[name] = ServedStore(name, searcher, metrics)

    def __iter__(self) -> Iterator[ServedStore]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str | None) -> ServedStore:
        """A store by its name, or the first one.

        Raises:
            ProblemError: 404 if there is none.
        """
        found = next(iter(self)) if name is None else self._by_name.get(name)
        if found is None:
            raise ProblemError(404, f"there is no store {name!r}; expected one of {', '.join(self._by_name)}")
        return found

    async def keep_fresh(self, seconds: float) -> None:
        """Look for changes, again and again."""
        while True:
            await asyncio.sleep(seconds)
            for store in self:
                await asyncio.to_thread(store.refresh)

    def warn_of_few_shared_images(self) -> None:
        """Say in the log if the two stores have few images in common."""
        first, *others = self
        for other in others:
            shared = _shared_keys(first.searcher, other.searcher)
            if shared is not None and shared < FEW_SHARED:
                _log.warning(
                    "only %.0f%% of the images of %s are in %s, by their keys; comparing the two says little",
                    100 * shared, other.name, first.name,
                )  # fmt: skip

    def close(self) -> None:
        """Let go of them."""
        for store in self:
            store.close()


def _shared_keys(first: Searcher, second: Searcher) -> float | None:
    """The share of some images of the second store that the first one has. None if that cannot be told."""
    index = second.current[0].index
    if not isinstance(index, IndexSearcher) or not index.num_rows:
        return None
    sample = np.unique(np.linspace(0, index.rows.num_rows - 1, SAMPLED_KEYS).astype(np.int64))
    found = first.has_keys(index.rows.metadata(sample, ["key"])["key"].to_pylist())
    return None if None in found else float(np.mean(found))


def _names(folders: list[Path]) -> list[str]:
    """The name of each folder, or with those above it if the names are the same."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"{folders[0]} is given twice; give another second store to compare with, or only one")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different names")
