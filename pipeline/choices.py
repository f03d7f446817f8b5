"""What a run chooses, and what it takes over from the store that it continues."""

from importlib.metadata import version

from pipeline import __version__
from pipeline.embed_report import read_summary
from pipeline.errors import ConfigError, FingerprintMismatch
from pipeline.model.precision import EIGHT_BITS, PrecisionChoice
from pipeline.model.quantization.packed import calibration_sha256, read_packed
from pipeline.model.spec import local_files, spec_metadata
from pipeline.planning.changes import Changes
from pipeline.settings.embed import INT8, EmbedSettings
from pipeline.source.listing import Listing, list_source
from pipeline.source.sample import choose_sample
from pipeline.store.calibration import calibration_fault, read_stored_calibration, write_calibration
from pipeline.store.parts import refuse_taken_names
from pipeline.store.records import StoreRecord
from pipeline.store.view import StoreView
from pipeline.workers.messages import EncoderRequest, KnownCalibration, WorkerReport


def listed(settings: EmbedSettings) -> Listing:
    """The source of a run, listed.

    Raises:
        InputError: If it cannot be listed.
        ConfigError: If a carried column has a name of our own.
    """
    source = settings.image_source()
    refuse_taken_names(source.columns)
    return list_source(source, settings.captions)


def refuse_other_choices(settings: EmbedSettings, listing: Listing, view: StoreView | None) -> None:
    """Refuse units of work or carried columns that are not those of the store, and a store of imported embeddings.

    Images that are tried again may have more pixels.

    Raises:
        FingerprintMismatch: If the embeddings of the store were imported.
        ConfigError: If they differ. The message shows both.
    """
    if view is None:
        return
    existing = view.record
    if existing.is_imported:
        raise FingerprintMismatch(
            f"the store {view.root} holds imported embeddings of {existing.encoder.describe()}, so nobody knows "
            "whether this run's encoder is the same; choose another --out"
        )
    asked = (
        settings.shard_size or existing.shard_capacity,
        settings.batch_size or existing.batch_size,
        settings.max_pixels or existing.max_pixels,
    )
    found = (existing.shard_capacity, existing.batch_size, existing.max_pixels)
    raises_pixels = asked[:2] == found[:2] and asked[2] > found[2]
    if asked != found and not (raises_pixels and settings.retry):
        hint = ", or add --retry too_large to try larger images again" if raises_pixels else ""
        raise ConfigError(
            "the store was created with --shard-size {} --batch-size {} --max-pixels {}, ".format(*found)
            + "but this run asks for {}, {} and {}; pass the original values to finish it".format(*asked)
            + hint
        )
    view.store.check_columns(listing.source.columns, existing)
    _refuse_other_precision(settings, view)


def _refuse_other_precision(settings: EmbedSettings, view: StoreView) -> None:
    found, asked = view.record.encoder.precision, settings.precision
    if asked not in ("auto", found) and not (asked == "8bit" and found in EIGHT_BITS):
        raise FingerprintMismatch(
            f"the store {view.root} was begun in {found}, but this run asks for --precision {asked}; leave out "
            f"--precision to go on in {found}, or choose another --out"
        )


def precision_of(settings: EmbedSettings, existing: StoreRecord | None) -> PrecisionChoice:
    """The precision to load: that of an existing store, which `refuse_other_choices` has found to be one asked for."""
    return existing.encoder.precision if existing else settings.precision


def calibration_of(settings: EmbedSettings, view: StoreView | None) -> KnownCalibration | None:
    """`known_calibration`, after the file of the store is put back if it is missing or was changed.

    Raises:
        ClipsieveError: Like `known_calibration`.
        StoreError: If the file cannot be written.
    """
    known = known_calibration(settings, view)
    if view and known and calibration_fault(view.store.calibration_path, view.record.encoder):
        write_calibration(view.store.calibration_path, known.data)
    return known


def known_calibration(settings: EmbedSettings, view: StoreView | None) -> KnownCalibration | None:
    """The calibration that a run begins with: that of its store, or the one that it was given.

    Raises:
        ConfigError: If one was given and the run is not in int8.
        FingerprintMismatch: If one was given and the store has another.
        InputError: If the given file is no calibration.
        StoreError: If the file of the store is missing, damaged or another one, and none was given.
    """
    path, precision = settings.calibration, precision_of(settings, view and view.record)
    if path and precision not in INT8:
        raise ConfigError(
            f"calibration = {str(path)!r}: only int8 uses a calibration, but this run's precision is {precision}; give "
            "--precision int8 and a new --out, or leave out --calibration"
        )
    data = read_packed(path) if path else None
    if view is None:
        return KnownCalibration(data=data, path=str(path)) if data else None
    spec, stored = view.record.encoder, view.store.calibration_path
    if data is None:
        data = read_stored_calibration(stored, spec)
    elif calibration_sha256(data) != spec.calibration:
        raise FingerprintMismatch(
            f"calibration {path} has the hash {calibration_sha256(data)[:16]}, but the store {view.root} was made with "
            f"{str(spec.calibration)[:16]}; leave out --calibration, or choose another --out"
        )
    return KnownCalibration(data=data, path=str(stored), is_of_store=True) if data else None


def is_up_to_date(settings: EmbedSettings, view: StoreView | None, changes: Changes) -> bool:
    """Whether a run would embed nothing and refuse nothing, as far as can be told without loading the model.

    What only workers can serve or refuse, such as a device or a cluster that was asked for, is left to them.

    The encoder is the store's own if the settings name the same model, policy and precision, and the files that it was
    loaded from have the size and time that the last run saw. Where this cannot be told, the answer is no.
    """
    if view is None or changes or view.missing or not view.committed or _needs_workers(settings):
        return False
    spec, files = view.record.encoder, local_files(view.record.encoder.source)
    return (
        settings.model_source() == spec.source
        and settings.pruning_policy() == spec.policy
        and not (settings.canary and spec.policy is None)
        and files is not None
        and files == read_summary(view.store).get("model_files")
    )


def _needs_workers(settings: EmbedSettings) -> bool:
    asked = (settings.ray_address, settings.workers, settings.min_workers, settings.metrics_port, settings.wandb)
    return settings.device == "cuda" or any(value is not None for value in asked)


def encoder_request(
    settings: EmbedSettings,
    existing: StoreRecord | None,
    listing: Listing,
    calibration: KnownCalibration | None = None,
    is_baseline: bool = False,
) -> EncoderRequest:
    """What the workers must load. An existing store keeps the choices of its first run."""
    precision = precision_of(settings, existing)
    measures = precision in INT8 and calibration is None
    return EncoderRequest(
        source=settings.model_source(),
        policy=settings.pruning_policy(),
        precision=None if precision == "auto" else precision,
        calibration=calibration,
        sample=choose_sample(listing) if measures else None,
        min_cosine=settings.min_cosine,
        kernels=existing.kernels if existing else None,
        max_pixels=existing.max_pixels if existing else settings.pixel_limit,
        # the order of summation, and so the last bits, depends on the number of threads
        threads=existing.threads_per_worker if existing else None,
        batch_size=existing.batch_size if existing else settings.batch_size,
        policy_is_default=settings.policy_is_default,
        image_timeout_s=settings.image_timeout,
        canary=settings.canary,
        is_baseline=is_baseline,
    )


def record_of(settings: EmbedSettings, listing: Listing, loaded: WorkerReport, capacity: int) -> StoreRecord:
    """The record of a new store. `capacity` is the number of images per shard."""
    return StoreRecord(
        clipsieve_version=__version__,
        **spec_metadata(loaded.spec),
        columns=listing.source.columns,
        shard_capacity=capacity,
        batch_size=loaded.batch_size,
        max_pixels=settings.pixel_limit,
        threads_per_worker=loaded.threads,
        environment={
            **loaded.versions,
            **{name: version(name) for name in ("ray", "pyarrow", "pillow", "numpy")},
            "device": loaded.device,
            "kernels": loaded.kernels,
        },
    )
