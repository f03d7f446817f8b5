"""What runs in Ray's processes: encode workers, each with a device and a model, and decode tasks."""

import io
import math
import platform
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.machine import prepare_for_torch
from pipeline.model.spec import Preprocess
from pipeline.pixels.decode import decode_all_but_jpegs, failed_record
from pipeline.pixels.read_ahead import read_ahead
from pipeline.source.entry import ImageEntry, ImageResult
from pipeline.store.layout import Store
from pipeline.store.records import CommitMarker, Shard, StoreRecord
from pipeline.workers.messages import EncoderRequest, WorkerIdentity, WorkerReport, code_sha256
from pipeline.workers.session import get

if TYPE_CHECKING:
    from pipeline.pixels.to_device import Decoded, HalfDecoded

BATCHES_AHEAD = 3
CRASHES_PER_IMAGE = 3
"""How often an image must end its decoder until it is taken for the cause, and not for a bystander."""

_DECODER_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)


@ray.remote(concurrency_groups={"progress": 1})  # one thread loads and embeds, one answers how far it is
class EncodeWorker:
    """Owns a device and a model; embeds and commits one shard at a time."""

    def __init__(self, threads: int, decode_cpus: float, batches_ahead: int = BATCHES_AHEAD) -> None:
        prepare_for_torch()
        self._own_threads = self._threads = threads
        self._batches_ahead = batches_ahead
        self._decode_options = {"num_cpus": decode_cpus}
        self._decode = _decode_task
        self._done = (0, 0)

    def identify(self) -> WorkerIdentity:
        """Say where this worker runs, by which code, and what its hardware computes fastest."""
        from pipeline.model.device import pick_precision

        return WorkerIdentity(platform.node(), __version__, code_sha256(), pick_precision("auto", self._device()))

    def load(self, request: EncoderRequest, weights: Any = None) -> WorkerReport:
        """Load the model, from where it is or from the weights that another worker packed, and warm it up."""
        import numpy as np
        import open_clip
        import torch

        from pipeline.model.device import default_batch_size, device_name
        from pipeline.model.encode import Encoder, fastest_encoder, policy_or_unpruned, sharing_weights
        from pipeline.model.load import load_model
        from pipeline.workers.canary import Canary

        self._threads = request.threads or self._own_threads
        torch.set_num_threads(self._threads)
        device = self._device()
        self._encoder = self._canary = self._loaded = None  # make room
        self._request = request
        if weights is None:
            loaded = load_model(request.source, request.precision, device)
        else:
            loaded = _unpacked(weights, device)
        policy, warning = policy_or_unpruned(loaded, request.policy, request.policy_is_default)
        if request.canary:
            if policy is None:
                raise ConfigError("--canary compares with the unpruned model, which this run embeds with already")
            self._canary = Canary(fastest_encoder(sharing_weights(loaded), None), request.canary)
        self._loaded = loaded  # as it is; what is pruned is a twin
        self._encoder = (Encoder if request.is_baseline else fastest_encoder)(sharing_weights(loaded), policy)
        preprocess = self._encoder.spec.preprocess
        batch_size = request.batch_size or default_batch_size(device)
        # warm up: the first forward pass and the first decode tasks, whose processes have to start, take seconds
        decoders = [_warm_up.options(**self._decode_options).remote() for _ in range(BATCHES_AHEAD)]
        self._encoder.encode(np.zeros((batch_size, preprocess.height, preprocess.width, 3), np.uint8))
        get(decoders)
        # plain text: torch's own version type would make the driver import torch to read it
        versions = {"torch": str(torch.__version__), "open_clip": str(open_clip.__version__)}
        return WorkerReport(self._encoder.spec, warning, device_name(device), batch_size, self._threads, versions)

    def pack(self) -> Any:
        """The loaded model as an array of bytes, which Ray's object store hands to other workers without copying."""
        return _packed(self._loaded)

    def embed_shard(self, shard: Shard, record: StoreRecord, root: Path) -> CommitMarker:
        """Embed and commit one shard."""
        import torch

        from pipeline.pixels.to_device import Ingest
        from pipeline.workers.shard import embed_shard

        torch.set_num_threads(self._threads)  # the count belongs to the calling thread
        ingest = Ingest(self._encoder, self._decode_by_pillow, self._request.image_timeout_s)

        def decode(batches: Iterable[Sequence[ImageEntry]]) -> Iterator["Decoded"]:
            return ingest.batches(self._decode_ahead(batches))

        try:
            return embed_shard(shard, record, Store(root), self._encoder, decode, self._count, self._canary)
        finally:
            self._done = (0, 0)  # now, not at the next start: these images are counted with the finished shard

    @ray.method(concurrency_group="progress")
    def images_done(self) -> tuple[int, int]:
        """Images done in the shard under way, and how many of them failed."""
        return self._done

    def _count(self, num_images: int, num_failed: int) -> None:
        self._done = (self._done[0] + num_images, self._done[1] + num_failed)

    def _decode_ahead(self, batches: Iterable[Sequence[ImageEntry]]) -> Iterator["HalfDecoded"]:
        pending: deque[tuple[Sequence[ImageEntry], Any]] = deque()
        for batch in read_ahead(batches):
            pending.append((batch, self._start(batch)))
            if len(pending) > self._batches_ahead:
                yield self._decoded(*pending.popleft())
        while pending:
            yield self._decoded(*pending.popleft())

    def _start(self, batch: Sequence[ImageEntry], preprocess: Preprocess | None = None) -> Any:
        preprocess = preprocess or self._encoder.spec.preprocess
        limits = self._request.max_pixels, self._request.image_timeout_s
        return self._decode.options(**self._decode_options).remote(batch, preprocess, *limits)

    def _decoded(self, batch: Sequence[ImageEntry], ref: Any) -> "HalfDecoded":
        try:
            return get(ref)
        except _DECODER_LOST:
            return self._decode_one_by_one(batch)

    def _decode_one_by_one(self, batch: Sequence[ImageEntry]) -> "HalfDecoded":
        # Some image in this batch ends the process that decodes it. It costs that image, not the batch.
        import numpy as np

        pixels, records, jpegs, seconds = zip(*(self._decode_alone(entry) for entry in batch), strict=True)
        left = {slot: encoded[0] for slot, encoded in enumerate(jpegs) if encoded}
        return np.concatenate(pixels), [record for [record] in records], left, sum(seconds)

    def _decode_by_pillow(self, entry: ImageEntry) -> tuple[Any, ImageResult]:
        preprocess = self._encoder.spec.preprocess.model_copy(update={"decoder": "pillow"})
        [pixels], [record], _, _ = self._decode_alone(entry, preprocess)
        return pixels, record

    def _decode_alone(self, entry: ImageEntry, preprocess: Preprocess | None = None) -> "HalfDecoded":
        import numpy as np

        timeout_s, num_timeouts = self._request.image_timeout_s, 0
        for _ in range(CRASHES_PER_IMAGE):
            started = time.perf_counter()
            try:
                return get(self._start([entry], preprocess))
            except _DECODER_LOST:
                elapsed_s = time.perf_counter() - started
                num_timeouts += bool(timeout_s and elapsed_s >= timeout_s)
                if num_timeouts == 2:  # once may be the wait for a core, and a crash
                    failed = failed_record(entry, "timeout", f"decoding did not end within {timeout_s:g} s")
                    break
                failed = failed_record(entry, "crashed", f"ended its decoder's process {CRASHES_PER_IMAGE} times")
        size = self._encoder.spec.preprocess
        return np.zeros((1, size.height, size.width, 3), np.uint8), [failed], {}, 0.0

    def _device(self) -> Any:
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@ray.remote(max_retries=0)  # Ray would try a batch that takes too much memory for ever; see _decode_one_by_one
def _decode_task(
    entries: Sequence[ImageEntry], preprocess: Preprocess, max_pixels: int, timeout_s: float | None
) -> "HalfDecoded":
    started = time.process_time()
    return *decode_all_but_jpegs(entries, preprocess, max_pixels, timeout_s), time.process_time() - started


@ray.remote
def _warm_up() -> None:
    time.sleep(0.5)  # long enough that the next one needs, and starts, a process of its own


def batches_ahead(num_cpus: int, num_workers: int) -> int:
    """Batches that a worker has decoded ahead: enough to keep its share of the cores busy, and bounded."""
    return min(32, max(BATCHES_AHEAD, math.ceil(num_cpus / num_workers) + 1))


def _packed(loaded: Any) -> Any:
    import numpy as np
    import torch

    buffer = io.BytesIO()
    torch.save((loaded.clip, loaded.tokenize, loaded.spec, loaded.summary_offsets_LD), buffer)
    return np.frombuffer(buffer.getbuffer(), np.uint8)


def _unpacked(weights: Any, device: Any) -> Any:
    import torch

    from pipeline.model.load import LoadedModel

    clip, tokenize, spec, offsets = torch.load(io.BytesIO(weights), map_location=device, weights_only=False)
    return LoadedModel(clip, tokenize, spec, device, offsets)
