"""`clipsieve index`: everything from committed parts to an index that is planned, built and proven."""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import faiss

from indexer.building.graph import build_flat, build_graph
from indexer.building.lists import build_lists
from indexer.building.plan import FOLDER, ROWS_FILE, BuildPlan, OnStep, read_plan
from indexer.choose import choose
from indexer.files import faiss_version, save_index, simd_level
from indexer.manifest import MANIFEST_FILE, IndexManifest, NewerIndex, Proof, hash_files, read_manifest
from indexer.proof.queries import TextQueries
from indexer.prove import UNTUNED, prove
from indexer.recipes.recipe import Kind, Recipe, parse_recipe, reason_of
from indexer.rows.collect import collect
from indexer.rows.mapped import MappedRows
from indexer.rows.record import RowFiles
from indexer.settings import IndexSettings
from indexer.update import can_update, rebuild_advice, update_index
from pipeline.durable.atomic import write_atomically
from pipeline.durable.lock import store_lock
from pipeline.durable.outputs import refuse_unwritable_folder
from pipeline.errors import ConfigError, NotProven, StoreError
from pipeline.store.view import StoreView

CHUNK_ROWS = 16_384
"""Rows that are assigned to lists at once; as many are lost if a build is killed."""
GRAPH_CHUNK_ROWS = 50_000
"""Rows between two copies of a graph on disk."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What became of an index."""

    manifest: IndexManifest
    action: str
    """built, updated or unchanged."""
    notes: list[str] = field(default_factory=list)

    @property
    def num_vectors(self) -> int:
        """Rows that can be found."""
        return self.manifest.num_vectors

    def refuse_short(self, settings: IndexSettings) -> None:
        """Raise an error if the recall that was asked for is not proven. The index stays, and can be searched.

        Raises:
            NotProven: If it was measured and falls short, or could not be measured and --min-recall was given.
        """
        proof = self.manifest.proof
        if proof.is_proven or not settings.proof or (not proof.text and settings.min_recall is None):
            return
        raise NotProven(
            f"the index of {settings.store} is not proven: {proof.reason}; "
            + (
                "give --recipe Flat, a lower --min-recall, or more --max-index-memory"
                if proof.text
                else "give --queries"
            )
        )


def build_index(
    settings: IndexSettings,
    text_queries: Callable[[StoreView], TextQueries | str] = lambda view: "no text queries were given",
    on_step: OnStep = lambda step, num_done, num_total: None,
) -> IndexReport:
    """Build the index of a store, or bring it up to date. Deleted rows are left out.

    The old index serves until the new one is complete. A build that was killed continues.

    Args:
        settings: Which store to index, and how.
        text_queries: Makes the text queries that tune and prove; or says why there are none.
        on_step: Called with progress.

    Raises:
        ConfigError: If the recipe or a limit cannot be met.
        NewerIndex: If the index is from a newer version, and `rebuild` is not set.
        UnfinishedStore: If shards are missing and `partial` is not set.
        StoreLocked: If another process builds it.
        StoreError: If a part is damaged or from another encoder, or the index cannot be written.
    """
    view = StoreView.open(settings.store, settings.partial)
    folder, advice = view.store.index_dir, "make the store writable, or index a copy of it"
    refuse_unwritable_folder(folder, "the index", advice)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; fix its permissions") from error
    with store_lock(folder, advice):
        faiss.omp_set_num_threads(settings.num_threads)
        clock, notes, queries = _Clock(on_step), [], cache(lambda: text_queries(view))
        old = _current(view, settings.rebuild)
        if old is not None and can_update(settings, view, old):
            manifest = update_index(view, old, _next_number(folder), clock)
            action = "unchanged" if manifest.num_rows == old.num_rows and manifest.files == old.files else "updated"
            if settings.limits:
                notes.append("its recipe stays as it was; to choose one within these limits, pass --rebuild")
        else:
            plan = _plan(settings, view, queries, clock, notes)
            manifest, action = _build(view, plan, clock), "built"
        if not (folder / MANIFEST_FILE).exists():
            manifest.write(folder)  # searchable at once; and if the proof is killed, only the proof is made again
        if action != "unchanged" or _wants_proof(settings, manifest):
            manifest = prove(settings, view, manifest, queries, clock)
        manifest = manifest.model_copy(update={"seconds": manifest.seconds | clock.seconds})
        if manifest != old:
            manifest.write(folder)
        sweep(folder, manifest)
    advice_to_rebuild = rebuild_advice(manifest)
    return IndexReport(manifest, action, notes + ([advice_to_rebuild] if advice_to_rebuild else []))


def _current(view: StoreView, rebuild: bool) -> IndexManifest | None:
    """The index that exists, if it can be read and is of this format.

    Raises:
        NewerIndex: If a newer version wrote it, and it is not to be replaced.
    """
    try:
        found = read_manifest(view)
    except NewerIndex:
        if rebuild:
            return None
        raise
    except StoreError:
        return None
    return found if isinstance(found, IndexManifest) else None


def _wants_proof(settings: IndexSettings, manifest: IndexManifest) -> bool:
    """Whether an index that is up to date is to be measured: it was not, or not with what is asked now."""
    proof = manifest.proof
    if manifest.kind == Kind.EXACT or not settings.proof:
        return False
    return not proof.text or proof.min_recall != settings.recall or settings.queries is not None


def _plan(
    settings: IndexSettings,
    view: StoreView,
    queries: Callable[[], TextQueries | str],
    on_step: OnStep,
    notes: list[str],
) -> BuildPlan:
    """The plan of a build that was stopped, if it is still what is wanted; or a new one."""
    folder = view.store.index_dir / FOLDER
    parts = {ordinal: marker.sha256 for ordinal, marker in sorted(view.committed.items())}
    deleted = hashlib.sha256(view.deleted.tobytes()).hexdigest()
    stopped = read_plan(folder)
    if stopped and stopped.is_for(parts, deleted, settings.asked):
        faiss.omp_set_num_threads(stopped.threads)
        notes.append("this continues a build that was stopped")
        if settings.threads not in (None, stopped.threads):
            notes.append(f"it uses {stopped.threads} threads, as the build began; the same files come out")
        if changed := stopped.differences():
            notes.append(f"the files may differ from those of an undisturbed build: {'; '.join(changed)}")
        return stopped
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    choice = choose(settings, view, queries, on_step)
    plan = BuildPlan(
        recipe=choice.recipe.factory,
        num_lists=choice.recipe.num_lists,
        parts=parts,
        deleted_sha256=deleted,
        number=_next_number(view.store.index_dir),
        num_train=choice.num_train,
        iterations=10,
        chunk_rows=GRAPH_CHUNK_ROWS if choice.recipe.kind is Kind.GRAPH else CHUNK_ROWS,
        threads=settings.num_threads,
        seed=settings.seed,
        simd=simd_level(),
        faiss_version=faiss_version(),
        reason=choice.reason,
        asked=settings.asked,
    )
    plan.write(folder)
    return plan


def _next_number(folder: Path) -> int:
    """A number that no file of the index has."""
    names = [path.stem.rpartition("-")[2] for path in folder.glob("*-*.*")]
    return max([int(name) for name in names if name.isdigit()], default=-1) + 1


def _build(view: StoreView, plan: BuildPlan, on_step: OnStep) -> IndexManifest:
    """Write the files of a plan. The manifest is not written yet."""
    folder = view.store.index_dir
    state_path = folder / FOLDER / ROWS_FILE
    files = collect(
        view, sorted(plan.parts), plan.number, folder, state_path, lambda done, total: on_step("rows", done, total)
    )
    recipe, rows = parse_recipe(plan.recipe, files.dim), MappedRows(folder, files)
    if recipe.num_lists > rows.num_rows:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)  # a plan that cannot be built must not be continued
        raise StoreError(
            f"{plan.recipe} has {recipe.num_lists} lists for {rows.num_rows} vectors; give a --recipe of fewer "
            "lists, or none"
        )
    try:
        index = _codes(plan, recipe, rows, folder / FOLDER, on_step)
    except RuntimeError as error:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        raise ConfigError(
            f"FAISS cannot build {plan.recipe} of {rows.num_rows} vectors ({reason_of(error)}); give another --recipe, "
            "or none and --rebuild"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; free up space or fix its permissions") from error
    path = folder / f"image-{plan.number:05d}.index"
    write_atomically(path, lambda temporary: save_index(index, temporary))
    return _manifest(view, plan, recipe, files, path)


def _codes(plan: BuildPlan, recipe: Recipe, rows: MappedRows, folder: Path, on_step: OnStep) -> faiss.Index:
    if recipe.kind is Kind.LISTS:
        return build_lists(plan, recipe, rows, folder, on_step)
    if recipe.kind is Kind.GRAPH:
        return build_graph(plan, recipe, rows, folder, on_step)
    return build_flat(plan, recipe, rows, on_step)


def _manifest(view: StoreView, plan: BuildPlan, recipe: Recipe, rows: RowFiles, path: Path) -> IndexManifest:
    return IndexManifest(
        recipe=recipe.factory,
        kind=recipe.kind,
        embedding_dim=rows.dim,
        num_vectors=rows.num_rows,
        num_rows=rows.num_rows,
        fingerprint=view.record.fingerprint,
        text_space=view.record.text_space,
        image_policy=view.record.image_space,
        parts=plan.parts,
        generation=plan.number,
        rows=rows,
        files=hash_files(path.parent, path.name, rows),
        point=UNTUNED,
        proof=Proof(is_proven=False, reason="not measured"),
        reason=plan.reason,
        seconds={},
        environment={"faiss": faiss_version(), "simd": simd_level(), "threads": plan.threads},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def sweep(folder: Path, manifest: IndexManifest) -> None:
    """Remove the files of older indexes and of the build."""
    kept = {MANIFEST_FILE, "lock.json", *manifest.files}
    for path in folder.iterdir():
        if path.is_file() and path.name not in kept:
            path.unlink()
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class _Clock:
    """Passes progress on, and adds up the seconds of each step."""

    def __init__(self, on_step: OnStep) -> None:
        self.seconds: dict[str, float] = {}
        self._on_step, self._last = on_step, time.perf_counter()

    def __call__(self, step: str, num_done: int, num_total: int) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 3)
        self._last = now
        self._on_step(step, num_done, num_total)
