"""Embed a source into a store in this process, without Ray."""

from importlib.metadata import version

import torch

from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ModelSource, spec_metadata
from pipeline.pixels.decode import decode_batch
from pipeline.planning.extend import extend_plan
from pipeline.source.entry import Source
from pipeline.source.listing import list_source
from pipeline.store.layout import Store
from pipeline.store.records import StoreRecord
from pipeline.workers.shard import embed_shard

MAX_PIXELS = 5000


def embed_plainly(source, root, model, precision="fp32", on_change="stop", source_format="auto", **spec):
    """Embed what a source has and the store has not; batches of 2 in shards of 5."""
    encoder = Encoder(load_model(ModelSource(model=model), precision, "cpu"), named_policy("balanced"))
    listing = list_source(Source(location=str(source), format=source_format, **spec))
    store = Store(root)
    store.create_folders()
    record = StoreRecord(
        clipsieve_version="test",
        **spec_metadata(encoder.spec),
        columns=listing.spec.columns,
        shard_capacity=5,
        batch_size=2,
        max_pixels=MAX_PIXELS,
        threads_per_worker=1,
        environment={"device": "cpu", "torch": version("torch")},
    )
    record = store.begin(record)
    record = extend_plan(store, record, store.committed(record), listing, on_change)
    committed = store.committed(record)

    def decode(batches):
        return ((*decode_batch(batch, encoder.spec.preprocess, MAX_PIXELS), 0.0) for batch in batches)

    num_threads = torch.get_num_threads()
    torch.set_num_threads(record.threads_per_worker)
    for shard in record.shards:
        if shard.ordinal not in committed:
            embed_shard(shard, record, store, encoder, decode)
    torch.set_num_threads(num_threads)
    return store
