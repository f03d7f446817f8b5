"""What a run chooses, and what it takes over from the store that it continues."""

from importlib.metadata import version

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.model.spec import spec_metadata
from pipeline.settings.embed import EmbedSettings
from pipeline.source.listing import Listing
from pipeline.store.records import StoreRecord
from pipeline.workers.messages import EncoderRequest, WorkerReport


def refuse_other_units(settings: EmbedSettings, existing: StoreRecord | None) -> None:
    """Refuse units of work that are not those of the store.

    Raises:
        ConfigError: If they differ. The message shows both.
    """
    if existing is None:
        return
    asked = (
        settings.shard_size or existing.shard_capacity,
        settings.batch_size or existing.batch_size,
        settings.max_pixels,
    )
    found = (existing.shard_capacity, existing.batch_size, existing.max_pixels)
    if asked != found:
        raise ConfigError(
            "the store was created with --shard-size {} --batch-size {} --max-pixels {}, ".format(*found)
            + "but this run asks for {}, {} and {}; pass the original values to finish it".format(*asked)
        )


def encoder_request(settings: EmbedSettings, existing: StoreRecord | None, is_baseline: bool) -> EncoderRequest:
    """What the workers must load. An existing store keeps the choices of its first run."""
    precision = None if settings.precision == "auto" else settings.precision
    if precision is None and existing:
        precision = existing.encoder.precision
    return EncoderRequest(
        source=settings.model_source(),
        policy=settings.pruning_policy(),
        precision=precision,
        max_pixels=settings.max_pixels,
        # the order of summation, and so the last bits, depends on the number of threads
        threads=existing.threads_per_worker if existing else None,
        batch_size=existing.batch_size if existing else settings.batch_size,
        policy_is_default=settings.policy_is_default,
        image_timeout_s=settings.image_timeout,
        canary=settings.canary,
        is_baseline=is_baseline,
    )


def record_of(
    settings: EmbedSettings, listing: Listing, loaded: WorkerReport, capacity: int, existing: StoreRecord | None
) -> StoreRecord:
    """The record of this run. `capacity` is the number of images per shard, if the store does not have one yet."""
    return StoreRecord(
        clipsieve_version=__version__,
        **spec_metadata(loaded.spec),
        columns=listing.source.columns,
        shard_capacity=existing.shard_capacity if existing else capacity,
        batch_size=existing.batch_size if existing else loaded.batch_size,
        max_pixels=settings.max_pixels,
        threads_per_worker=loaded.threads,
        environment={
            **loaded.versions,
            **{name: version(name) for name in ("ray", "pyarrow", "pillow", "numpy")},
            "device": loaded.device,
        },
    )
