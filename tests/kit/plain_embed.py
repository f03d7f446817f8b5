"""Embed a source into a store in this process, without Ray."""

from importlib.metadata import version

import torch

from pipeline.model.calibrate import with_calibration
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.quantization.calibration import read_calibration
from pipeline.model.spec import ModelSource
from pipeline.pixels.decode import decode_batch
from pipeline.planning.extend import find_changes, write_changes
from pipeline.source.entry import Source
from pipeline.source.listing import list_source
from pipeline.source.sample import choose_sample
from pipeline.store.layout import Store
from pipeline.store.view import StoreView
from pipeline.workers.calibrate import measured
from pipeline.workers.shard import embed_shard
from tests.kit.fake_store import fake_record

MAX_PIXELS = 5000


def embed_plainly(
    source, root, model, precision="fp32", on_change="stop", source_format="auto", retried=(), max_pixels=None,
    policy="balanced", captions=None, largest=MAX_PIXELS, **spec
):  # fmt: skip
    """Embed what is in a source but not yet in the store, in batches of 2 and shards of 5."""
    loaded = load_model(ModelSource(model=model), precision, "cpu", kernels="onednn")
    listing = list_source(Source(location=str(source), format=source_format, **spec), captions)
    store = Store(root)
    store.create_folders()
    if precision == "int8":
        loaded = _with_calibration(loaded, named_policy(policy), store, listing)
    encoder = Encoder(loaded, named_policy(policy))
    record = fake_record(
        encoder.spec, columns=listing.source.columns, shard_capacity=5, max_pixels=largest,
        environment={"device": "cpu", "torch": version("torch")},
    )  # fmt: skip
    packed = loaded.calibration.packed() if loaded.calibration else None
    view = StoreView.now(store, store.begin(record, packed))
    changes = find_changes(view, listing, on_change, retried=retried)
    view = write_changes(view, listing, changes, max_pixels=max_pixels)

    num_threads = torch.get_num_threads()
    torch.set_num_threads(view.record.threads_per_worker)
    for shard in view.missing:
        limit = view.record.max_pixels_of(shard)

        def decode(batches, limit=limit):
            return (decode_batch(batch, encoder.spec.preprocess, limit) for batch in batches)

        embed_shard(shard, view.record, store, encoder, decode)
    torch.set_num_threads(num_threads)
    return store


def _with_calibration(loaded, policy, store, listing):
    """The calibration of the store if it has one, else measured as a worker does."""
    if store.record_path.exists():
        return with_calibration(loaded, read_calibration(store.calibration_path))
    preprocess = loaded.spec.preprocess
    return measured(
        loaded, policy, choose_sample(listing), lambda batches: (decode_batch(batch, preprocess) for batch in batches)
    )[0]
