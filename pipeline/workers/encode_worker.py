"""The encode worker: a Ray actor that owns a device and a model, and embeds one shard at a time."""

import io
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import ray

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.machine import prepare_for_torch
from pipeline.model.spec import DeviceChoice
from pipeline.pixels.batch import DecodedBatch
from pipeline.source.access.credentials import KEYRING
from pipeline.source.entry import ImageEntry
from pipeline.store.layout import Store
from pipeline.store.records import CommitMarker, Shard, StoreRecord
from pipeline.workers.decode_task import TASKS_AHEAD, DecodeTasks
from pipeline.workers.messages import (
    Calibrating,
    EncoderRequest,
    KnownCalibration,
    WorkerIdentity,
    WorkerReport,
    code_sha256,
)
from pipeline.workers.session import get


@ray.remote(concurrency_groups={"progress": 1})  # one thread loads and embeds, one reports progress
class EncodeWorker:
    """Owns a device and a model; embeds and commits one shard at a time."""

    def __init__(
        self,
        threads: int,
        decode_cpus: float,
        num_ahead: int = TASKS_AHEAD,
        device: DeviceChoice = "auto",
    ) -> None:
        prepare_for_torch()
        self._own_threads = self._threads = threads
        self._decode_cpus, self._num_ahead = decode_cpus, num_ahead
        self._asked_device = device
        self._done = (0, 0)

    def identify(self) -> WorkerIdentity:
        """Report where this worker runs, and the version of its code."""
        # importing the model's code takes seconds: here all workers do it at once, in `load` one after another
        import pipeline.model.load  # noqa: F401

        return WorkerIdentity(host=platform.node(), version=__version__, code_sha256=code_sha256())

    def load(self, request: EncoderRequest, weights: Any = None) -> WorkerReport:
        """Load the model, from its source or from weights packed by another worker, and warm it up."""
        import open_clip
        import torch

        from pipeline.model.device import default_batch_size, device_name, pick_device
        from pipeline.model.encode import Encoder, fastest_encoder, policy_or_unpruned, sharing_weights
        from pipeline.model.load import load_model
        from pipeline.workers.calibrate import other_policy
        from pipeline.workers.canary import Canary

        self._threads = request.threads or self._own_threads
        torch.set_num_threads(self._threads)
        device = pick_device(self._asked_device)
        self._encoder = self._canary = self._loaded = None  # free memory first
        self._batch_size = batch_size = request.batch_size or default_batch_size(device)
        if weights is None:
            loaded = load_model(request.source, request.precision or "auto", device, batch_size, request.kernels)
        else:
            loaded = _unpack(weights, device)
        policy, warning = policy_or_unpruned(loaded, request.policy, request.policy_is_default)
        if request.canary and policy is None:
            raise ConfigError("--canary compares with the unpruned model, but this run is unpruned; drop --canary")
        preprocess = loaded.spec.preprocess
        self._timeout_s = request.image_timeout_s
        self._decode_tasks = DecodeTasks(
            preprocess=preprocess,
            max_pixels=request.max_pixels,
            timeout_s=self._timeout_s,
            num_cpus=self._decode_cpus,
            num_ahead=self._num_ahead,
        )
        loaded, calibrating = self._with_calibration(loaded, policy, request)
        warnings = [warning, loaded.warning, other_policy(loaded, policy)]
        if request.canary:
            self._canary = Canary(fastest_encoder(sharing_weights(loaded), None), request.canary)
        self._loaded = loaded  # kept unchanged; the pruned encoder shares its weights
        self._encoder = (Encoder if request.is_baseline else fastest_encoder)(sharing_weights(loaded), policy)
        # warm up: the first forward pass takes seconds, and so does starting the decode processes
        decoders = self._decode_tasks.warm_up()
        self._encoder.encode(np.zeros((batch_size, preprocess.height, preprocess.width, 3), np.uint8))
        get(decoders)
        coverage = self._encoder.coverage
        return WorkerReport(
            spec=self._encoder.spec,
            warning="; ".join(filter(None, [*warnings, coverage and coverage.warning])) or None,
            device=device_name(device),
            batch_size=batch_size,
            threads=self._threads,
            kernels=loaded.kernels,
            calibration=request.calibration or _known(loaded),
            calibrating=calibrating,
            measurement=loaded.measurement,
            # plain strings: the driver would have to import torch to read torch's own version type
            versions={"torch": str(torch.__version__), "open_clip": str(open_clip.__version__)},
        )

    def _with_calibration(self, loaded: Any, policy: Any, request: EncoderRequest) -> tuple[Any, Calibrating | None]:
        """The model with the ranges that int8 needs, and what it took to measure them."""
        import torch

        from pipeline.model.device import use_all_cores
        from pipeline.workers.calibrate import measured, with_known

        if request.calibration:
            return with_known(loaded, request.calibration), None
        if loaded.spec.precision != "int8":
            return loaded, None
        if request.sample is None:
            raise ConfigError("precision = 'int8': this run knows no images to calibrate on; give --calibration")
        use_all_cores()  # the other workers wait for this one, and ranges must not depend on their number
        KEYRING.add(request.sample.credentials)
        try:
            return measured(
                loaded, policy, request.sample, self._decode_tasks.all_by_pillow().ahead, request.min_cosine
            )
        finally:
            KEYRING.clear()
            torch.set_num_threads(self._threads)

    def compile_tower(self) -> str | None:
        """Compile the image tower; returns why it cannot be compiled, or None."""
        import torch

        torch.set_num_threads(self._threads)  # the setting is per calling thread, and compiled code depends on it
        return self._encoder.compile(self._batch_size)

    def pack(self) -> Any:
        """The loaded model as an array of bytes, which Ray's object store shares with other workers without copying."""
        return _pack(self._loaded)

    def embed_shard(
        self, shard: Shard, record: StoreRecord, root: Path, credentials: Mapping[str, str] = MappingProxyType({})
    ) -> CommitMarker:
        """Embed and commit one shard. `credentials` are those of its URLs."""
        import torch

        from pipeline.pixels.to_device import DeviceLoader
        from pipeline.workers.shard import embed_shard

        torch.set_num_threads(self._threads)  # the setting is per calling thread
        tasks = self._decode_tasks.limited_to(record.max_pixels_of(shard))
        loader = DeviceLoader(self._encoder, tasks.alone_by_pillow, self._timeout_s)

        def decode(batches: Iterable[Sequence[ImageEntry]]) -> Iterator[DecodedBatch]:
            return loader.batches(tasks.ahead(batches))

        KEYRING.add(credentials)
        try:
            return embed_shard(shard, record, Store(root), self._encoder, decode, self._count, self._canary)
        finally:
            KEYRING.clear()
            self._done = (0, 0)  # reset now, not at the next start: these images count with the finished shard

    @ray.method(concurrency_group="progress")
    def images_done(self) -> tuple[int, int]:
        """Number of images done in the current shard, and how many of them failed."""
        return self._done

    def _count(self, num_images: int, num_failed: int) -> None:
        self._done = (self._done[0] + num_images, self._done[1] + num_failed)


def _known(loaded: Any) -> KnownCalibration | None:
    return KnownCalibration(data=loaded.calibration.packed()) if loaded.calibration else None


def _pack(loaded: Any) -> Any:
    import torch

    buffer = io.BytesIO()
    torch.save((loaded.clip, loaded.tokenize, loaded.spec, loaded.summary_offsets_LD), buffer)
    return np.frombuffer(buffer.getbuffer(), np.uint8)


def _unpack(weights: Any, device: Any) -> Any:
    import torch

    from pipeline.model.load import LoadedModel

    clip, tokenize, spec, offsets = torch.load(io.BytesIO(weights), map_location=device, weights_only=False)
    return LoadedModel(clip, tokenize, spec, device, summary_offsets_LD=offsets)
