"""`clipsieve adapt`: train an adapter that recovers the accuracy lost to pruning, from photos to files on disk.

The teacher is the unpruned model as loaded. The student is the same model with weights updated by a fusion and an
image tower pruned to a cost drawn at random for each step. The student learns to embed images as the teacher does and,
if there are captions, to tell them apart.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipeline import __version__
from pipeline.durable.lock import store_lock
from pipeline.durable.outputs import refuse_unwritable_folder
from pipeline.errors import ConfigError, InputError, StoreError
from pipeline.measure.provenance import provenance
from pipeline.model.adapter.config import FusionConfig
from pipeline.model.adapter.files import CARD_FILE, read_card, write_adapter
from pipeline.model.device import device_name, pick_device, use_all_cores
from pipeline.model.export import export_checkpoint, refuse_used
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.pruning.policy import PruningPolicy, named_policy, sharpened
from pipeline.model.spec import ModelSource
from pipeline.model.towers.families import unprunable_reason
from pipeline.monitor.progress import Tick
from pipeline.scenes import collection
from pipeline.settings.adapt import AdaptSettings
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.examples import Decoder, gather
from pipeline.training.loop import Training
from pipeline.training.student import Student
from pipeline.training.teacher import Teacher

NUM_SCENES = 4000
"""Number of scenes drawn to train the adapter of the built-in model."""

_RECIPE_FIELDS = set(AdaptSettings.model_fields) - {
    *("config", "data", "captions", "out", "export", "adapter", "device", "policy", "precision", "as_json", "json_file")
}


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """The result of a training run; `was_there` is True if the adapter was already finished."""

    adapter: Path
    results: dict[str, Any]
    was_there: bool
    warnings: list[str] = field(default_factory=list)


def adapt(
    settings: AdaptSettings,
    on_tick: Callable[[str, Tick], None] = lambda name, tick: None,
    on_entry: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> AdaptReport:
    """Train an adapter, or resume an unfinished training run. Does not export it: see `export`.

    Args:
        settings: Model, data, recipe.
        on_tick: Called with the progress of the training.
        on_entry: Called with each log entry as it is written.

    Returns:
        The path of the adapter and its results on the held-out images.

    Raises:
        ClipsieveError: See `pipeline.errors`. The last good state stays in `training/` in the adapter's folder.
    """
    if settings.export:
        refuse_used(settings.export)
    if (settings.out / CARD_FILE).exists():
        return _found(settings)
    refuse_unwritable_folder(settings.out, "--out")
    with _data(settings) as (folder, captions):
        examples = gather(folder, captions, settings.held_out, settings.seed)
        use_all_cores()
        device = pick_device(settings.device)
        source = settings.model_source()
        loaded, reference = _loaded(source, settings, device), load_model(source, "fp32", "cpu")
        _refuse_unprunable(loaded)
        policies = _policies(settings)
        student = _student(settings, loaded, reference, policies)
        recipe = _recipe(settings, loaded.spec.precision, reference.spec.weights_sha256, examples.fingerprint())
        texts = [text for captions in examples.captions for text in captions]
        num_cut, warnings = loaded.tokenize.count_cut(texts, "caption", "captions") if texts else (0, [])
        work = settings.out / "training"
        with Decoder(examples, loaded.spec.preprocess) as decoder:
            decoder.refuse_few()
            with _locked(work):
                training = Training(
                    settings=settings,
                    student=student,
                    teacher=Teacher(loaded),
                    examples=examples,
                    decoder=decoder,
                    checkpoint=Checkpoint(work / "state.pt", recipe),
                )
                measured = training.run(on_tick, on_entry)
    results = {name: dict(zip(policies, rows, strict=True)) for name, rows in measured.items()}
    data = {"num_training": examples.num_training, "num_held_out": examples.num_held_out}
    data |= {"num_failed_held_out": training.num_failed_held_out, "num_cut_captions": num_cut}
    account = {"recipe": recipe, "data": data, "results": results, "log": training.log}
    _write(settings, student, account, device)
    shutil.rmtree(work, ignore_errors=True)
    return AdaptReport(settings.out, results, was_there=False, warnings=warnings)


def _write(settings: AdaptSettings, student: Student, account: dict[str, Any], device: torch.device) -> None:
    weights_sha256 = account["recipe"]["weights_sha256"]
    write_adapter(
        settings.out,
        student.fusion,
        student.summary_offsets_LD,
        base={"model": settings.model, "pretrained": settings.pretrained, "weights_sha256": weights_sha256},
        account={
            "clipsieve_version": __version__,
            **account,
            "environment": {**provenance(), "device": device_name(device)},
        },
    )


def export(source: ModelSource, adapter: str, folder: Path) -> None:
    """Merge an adapter into a model and write the result as a directory that open_clip can load.

    Raises:
        ClipsieveError: If the adapter belongs to another model, or the folder is not empty.
    """
    refuse_used(folder)
    merged = source.model_copy(update={"adapter": adapter})
    export_checkpoint(load_model(merged, "fp32", "cpu"), folder)


def _found(settings: AdaptSettings) -> AdaptReport:
    """Report an existing adapter, after checking its recipe as far as possible without the data."""
    card = read_card(settings.out)
    asked = settings.model_dump(mode="json", include=_RECIPE_FIELDS)
    other = next((name for name in asked if card["recipe"].get(name) != asked[name]), None)
    if other:
        raise ConfigError(
            f"{settings.out} contains an adapter trained with {other} = {card['recipe'].get(other)!r}, not "
            f"{asked[other]!r}; choose another --out"
        )
    return AdaptReport(settings.out, card["results"], was_there=True)


def _refuse_unprunable(loaded: LoadedModel) -> None:
    reason = unprunable_reason(loaded.clip.visual)
    if reason:
        raise InputError(f"an adapter needs an image tower that can be pruned, but {reason}; choose another model")


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Allow one training run at a time in a folder."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {work}: {error.strerror}; choose another --out") from error
    with store_lock(work):
        yield


@contextmanager
def _data(settings: AdaptSettings) -> Iterator[tuple[Path, Path | None]]:
    """Yield the paths of images and captions; draws scenes for the built-in model."""
    if settings.data:
        yield settings.data, settings.captions
        return
    with TemporaryDirectory(prefix="clipsieve-") as folder:
        captions = collection.write_collection(Path(folder), NUM_SCENES, split="train")
        yield captions.parent, None if settings.label_free else captions


def _loaded(source: ModelSource, settings: AdaptSettings, device: torch.device) -> LoadedModel:
    loaded = load_model(source, settings.precision, device)
    if settings.precision == "auto" and loaded.measurement:
        precision = loaded.measurement.for_training()
        return loaded if precision == loaded.spec.precision else load_model(source, precision, device)
    return loaded


def _policies(settings: AdaptSettings) -> dict[str, PruningPolicy]:
    """The policy as given and sharpened to each cost; `lossless` stands in for unpruned: as accurate, and faster."""
    asked = settings.pruning_policy()
    unpruned = named_policy("lossless")
    policies = {asked.name: asked} if asked else {}
    for ratio in settings.cost_ratios() if asked else [1.0]:
        policies[f"{ratio:g}x"] = unpruned if ratio == 1 else sharpened(asked, ratio)
    return policies


def _student(
    settings: AdaptSettings, loaded: LoadedModel, reference: LoadedModel, policies: dict[str, PruningPolicy]
) -> Student:
    variant = settings.variant or ("image-only" if settings.label_free else "shared")
    shape = settings.model_dump(include={"rank", "alpha", "factors"})
    return Student(
        loaded=loaded,
        reference=reference,
        policies=list(policies.values()),
        config=FusionConfig(**shape, targets=tuple(settings.target_names()), variant=variant),
        seed=settings.seed,
    )


def _recipe(settings: AdaptSettings, precision: str, base_sha256: str, data_sha256: str) -> dict[str, Any]:
    """Everything that determines the result."""
    policy = settings.pruning_policy()
    return {
        **settings.model_dump(mode="json", include=_RECIPE_FIELDS),
        "policy": policy.model_dump(mode="json") if policy else None,
        "precision": precision,
        "threads": torch.get_num_threads(),  # determines the order of sums, and so the last bits
        "weights_sha256": base_sha256,
        "data_sha256": data_sha256,
    }
