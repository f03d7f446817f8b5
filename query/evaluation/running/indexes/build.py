"""Build the index of a gallery, or open the one that an earlier run left; and say at which points it is searched.

Shapes: N images, Q queries, E embedding width.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.build import build_index
from indexer.manifest import IndexManifest, read_manifest
from indexer.opening import open_index
from indexer.proof.queries import TextQueries
from indexer.recipes.point import OperatingPoint
from indexer.recipes.recipe import Kind
from indexer.searcher import IndexSearcher
from indexer.settings import IndexSettings
from pipeline.errors import StoreError
from pipeline.store.view import StoreView
from query.evaluation.grid.keys import IndexKeys
from query.evaluation.record import ConditionRecord, IndexRecord
from query.evaluation.running.indexes.store import write_store

AUTO = "auto"
_EFFORTS = {Kind.LISTS: "nprobe", Kind.GRAPH: "efSearch"}


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """An open index, and the points at which it is searched."""

    searcher: IndexSearcher
    manifest: IndexManifest
    points: Sequence[OperatingPoint]
    is_new: bool
    """Whether this run built it."""

    def warnings(self, name: str, keys: IndexKeys) -> list[str]:
        """What one should know about it; `name` is its place in the grid."""
        if keys.efforts and self.searcher.recipe.kind not in _EFFORTS:
            return [f"{name}: {self.manifest.recipe} has no effort to choose, so `efforts` is not used"]
        return []


def built(
    root: Path, vectors_NE: np.ndarray, queries_QE: np.ndarray, condition: ConditionRecord, keys: IndexKeys
) -> BuiltIndex:
    """Build an index of a gallery, or open it.

    Where the grid names no effort, half of the queries tune the index, and the other half proves its recall against
    exact search, without labels.

    Args:
        root: The folder of its store. What is there was made of the same vectors.
        vectors_NE: The gallery.
        queries_QE: The queries.
        condition: Whose vectors they are.
        keys: What the grid asks for.

    Raises:
        ConfigError: If the recipe cannot be used.
        StoreError: If it does not fit the gallery, or the folder cannot be written.
    """
    try:
        view = StoreView.open(root)
        manifest, is_new = read_manifest(view), False
    except StoreError:  # there is none, or a run was killed while it was built
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        write_store(root, vectors_NE, condition)
        recipe = None if keys.recipe == AUTO else keys.recipe
        settings = IndexSettings(store=root, recipe=recipe, proof=not keys.efforts)
        manifest, is_new = build_index(settings, lambda view: _halves(queries_QE)).manifest, True
        view = StoreView.open(root)
    searcher = open_index(view, device="cpu")
    has_effort = searcher.recipe.kind in _EFFORTS
    efforts = keys.efforts or (manifest.point.effort,) if has_effort else (0,)
    points = [manifest.point.model_copy(update={"effort": effort}) for effort in efforts]
    return BuiltIndex(searcher, manifest, points, is_new)


def folder_of(parent: Path, data_sha256: str, images_sha256: str, fingerprint: str, keys: IndexKeys) -> Path:
    """Where the store of an index is: a name for everything that it depends on."""
    made_of = [data_sha256, images_sha256, fingerprint, keys.recipe, not keys.efforts]
    return parent / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def condition_of(index: BuiltIndex, point: OperatingPoint, parent: ConditionRecord, on: str) -> ConditionRecord:
    """The condition of an index at one of its points.

    Args:
        index: The index.
        point: One of its points.
        parent: The condition whose vectors it holds.
        on: End of the name: where one index is over several data sets, which one.
    """
    recipe, effort = index.manifest.recipe, _EFFORTS.get(index.searcher.recipe.kind)
    at = f", {effort} {point.effort}" if effort else ""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{recipe}{at}".lower())
    hashed = hashlib.sha256(json.dumps([parent.key, recipe, point.model_dump(), on]).encode()).hexdigest()[:8]
    return parent.model_copy(
        update={
            "key": f"{parent.key}-{slug}-{hashed}",
            "name": f"{parent.name}, {recipe}{at}{on}",
            "role": "index",
            "parent": parent.key,
            "index": IndexRecord(
                recipe=recipe,
                effort=point.effort,
                candidates=point.candidates,
                num_bytes=index.manifest.num_bytes,
            ),
        }
    )


def _halves(queries_QE: np.ndarray) -> TextQueries:
    order_Q = np.random.default_rng(0).permutation(len(queries_QE))
    tuning_QE, proving_QE = (queries_QE[np.sort(some)] for some in np.array_split(order_Q, 2))
    return TextQueries(
        tuning_QE=tuning_QE,
        proving_QE=proving_QE,
        source=f"half of the {len(queries_QE)} queries of the data set",
        sha256=hashlib.sha256(proving_QE.tobytes()).hexdigest(),
    )
