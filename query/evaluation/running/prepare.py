"""What comes before anything is measured: models, data sets and the record, and what of earlier runs still holds."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pipeline import __version__
from pipeline.errors import ClipsieveError, StoreError
from pipeline.model.device import default_batch_size, pick_device, use_all_cores
from pipeline.model.precision import Candidate, Kernels
from query.evaluation.data.data_set import DataSet
from query.evaluation.data.open import open_data
from query.evaluation.grid.condition import Condition
from query.evaluation.grid.names import adapted_twin
from query.evaluation.grid.read import Grid
from query.evaluation.ranking.both_ways import IMAGE_TO_TEXT
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.record import read_record
from query.evaluation.record import SCHEMA_VERSION, SweepRecord, changes_of
from query.evaluation.running.calibrations import Calibrations
from query.evaluation.running.environment import environment_of, key_of
from query.evaluation.running.galleries import Gallery, galleries_of
from query.evaluation.running.kept.images import Image, look_at
from query.evaluation.running.kept.work import OnTick, Work
from query.evaluation.running.towers import Models, Tower, load_towers

OnNote = Callable[[str], None]
_NAMED = 3  # images that a warning names


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is known before anything is measured."""

    work: Work
    record: SweepRecord
    towers: Sequence[Tower]
    galleries: Sequence[Gallery]
    batch_size: int


def prepare(
    grid: Grid, conditions: Sequence[Condition], folder: SweepFolder, again: bool, on_tick: OnTick, on_note: OnNote
) -> Prepared:
    """Load the models, open the data sets and look at their images. See `run` for the arguments and the errors."""
    use_all_cores()
    device = pick_device(grid.keys.device)
    batch_size = grid.keys.batch_size or default_batch_size(device)
    environment = environment_of(device, batch_size)
    earlier, work = _earlier(folder), Work(folder, key_of(environment), on_tick)
    if earlier and earlier.environment_key != work.environment_key:
        changes = changes_of(earlier.environment, environment)
        on_note(f"everything is measured anew, because the environment changed: {changes}")
    data = [_opened(grid, number, folder) for number in range(len(grid.keys.data))]
    models = Models(device, batch_size, *_known_precision(work, earlier, conditions[0], again))
    calibrations = Calibrations(grid.keys.calibration, data[0], work, again)
    towers, left_out = load_towers(conditions, grid, models, on_tick, calibrations.calibrated)
    galleries, failures = _galleries(grid, work, data, towers)
    _refuse_large_ks(grid, galleries)
    _refuse_metric_of_other_data(grid, galleries)
    record = SweepRecord(
        clipsieve_version=__version__,
        grid=grid.as_json(),
        grid_sha256=hashlib.sha256(json.dumps(grid.as_json(), sort_keys=True).encode()).hexdigest(),
        commands=_commands(earlier, environment["command"]),
        environment=environment | models.choices(),
        environment_key=work.environment_key,
        data=[gallery.record(galleries[0].data.name) for gallery in galleries],
        conditions=[tower.record() for tower in towers],
        warnings=[
            *left_out,
            *models.warnings(),
            *calibrations.warnings(),
            *failures,
            *_cut_texts(towers[0], galleries),
        ],
    )
    return Prepared(work, record, towers, galleries, batch_size)


def _earlier(folder: SweepFolder) -> SweepRecord | None:
    """The record of an earlier run; None if there is none, or it is damaged: it is written again.

    Raises:
        StoreError: If another version of the schema wrote it.
    """
    try:
        return read_record(folder)
    except StoreError:
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(folder.record.read_bytes())["schema_version"] != SCHEMA_VERSION:
                raise
        return None


def _commands(earlier: SweepRecord | None, command: str) -> list[str]:
    """The commands that worked on the folder, each once."""
    return list(dict.fromkeys([*(earlier.commands if earlier else []), command]))


def _known_precision(
    work: Work, earlier: SweepRecord | None, baseline: Condition, again: bool
) -> tuple[Candidate | None, Kernels | None]:
    """The precision that an earlier run chose by measuring: a second measurement might choose another."""
    if again or not earlier or earlier.environment_key != work.environment_key or earlier.baseline.key != baseline.key:
        return None, None
    found = earlier.environment
    return Candidate.model_validate(found["auto"]) if found.get("auto") else None, found.get("bf16_kernels")


def _opened(grid: Grid, number: int, folder: SweepFolder) -> DataSet:
    keys = grid.keys.data[number]
    try:
        data = open_data(keys, folder.root / "scenes" / keys.name)
    except ClipsieveError as error:
        raise type(error)(f"{grid.path}, line {grid.line_of(('data', number))}: {error}") from error
    place = keys.images or keys.webdataset or keys.classes or keys.store
    return replace(data, location=grid.as_spelled(str(place))) if place else data


def _galleries(
    grid: Grid, work: Work, data: Sequence[DataSet], towers: Sequence[Tower]
) -> tuple[list[Gallery], list[str]]:
    """The galleries of all data sets, and a warning for each that has images without pixels, or unused distractors."""
    everyone, decomposed = [tower.key for tower in towers], _decomposed(grid, towers)
    largest = max((tower.encoder.spec.preprocess for tower in towers), key=lambda found: found.height * found.width)
    galleries, warnings = [], []
    for each in data:
        images = look_at(each.entries, largest, work.folder.vectors("images.parquet", each.name), work.on_tick)
        galleries += galleries_of(each, images, everyone, decomposed)
        warnings += _failures(each, images)
        if each.num_own < len(each.entries) and not decomposed:
            warnings.append(f"data set {each.name!r}: its distractors are not used, because nothing is decomposed")
    return galleries, warnings


def _failures(data: DataSet, images: Sequence[Image]) -> list[str]:
    failed = [image for image in images if image.error is not None]
    if not failed:
        return []
    named = ", ".join(f"{image.key!r} ({image.error})" for image in failed[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    left_out = f"{len(failed)} of {len(images)} images cannot be decoded and are left out of all conditions"
    return [f"data set {data.name!r}: {left_out}: {named}{more}"]


def _cut_texts(baseline: Tower, galleries: Sequence[Gallery]) -> list[str]:
    """A warning for each data set with queries that are longer than the model reads."""
    plain = {gallery.parts[0].name: gallery.data for gallery in reversed(galleries)}
    warnings = []
    for name, data in plain.items():
        prompts = [text for texts in data.prompts for text in texts]
        _, found = baseline.encoder.tokenize.count_cut(prompts, "caption", "captions")
        warnings += [f"data set {name!r}: {text}" for text in found]
    return warnings


def _decomposed(grid: Grid, towers: Sequence[Tower]) -> list[str]:
    """Keys of the conditions whose gallery has the distractors: the baseline, those decomposed, their adapted twins."""
    if not grid.keys.decompose:
        return []
    conditions = [tower.condition for tower in towers]
    bare = [condition for condition in conditions if condition.name in grid.keys.decompose.conditions]
    adapter = grid.as_spelled(grid.keys.decompose.adapter)
    twins = [adapted_twin(conditions, condition, adapter) for condition in bare] if adapter else []
    asked = {id(condition) for condition in [conditions[0], *bare, *twins]}
    return [tower.key for tower in towers if id(tower.condition) in asked]


def _refuse_large_ks(grid: Grid, galleries: Sequence[Gallery]) -> None:
    smallest = min(galleries, key=lambda gallery: len(gallery.data.entries)).data
    for place, k in enumerate(grid.keys.ks):
        if k > len(smallest.entries):
            problem = f"the gallery of {smallest.name!r} has only {len(smallest.entries)} images; give a smaller k"
            raise grid.error(("ks", place), problem, k)


def _refuse_metric_of_other_data(grid: Grid, galleries: Sequence[Gallery]) -> None:
    """Refuse a metric of classes where all data sets have captions, and one of texts where all have classes."""
    metric, kinds = grid.keys.metric, {gallery.data.kind for gallery in galleries}
    lacking = {"acc": "classes", IMAGE_TO_TEXT: "captions"}
    kind = next((kind for start, kind in lacking.items() if metric.startswith(start)), None)
    if kind and kind not in kinds:
        raise grid.error(("metric",), f"no data set has {kind}; add one, or name another metric", metric)
