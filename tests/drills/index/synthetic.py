"""Generate a store of any size, and text vectors to search it with, whose geometry is that of the shared vectors.

    python tests/drills/index/synthetic.py STORE --images 1000000 --dim 512 --texts 4000
    python tests/drills/index/synthetic.py --check --json check.json

The first writes a finished store without images or a model: parts, commit markers and records, written a chunk at a
time, and TEXTS.parquet beside it (a column `embedding`). The same arguments give the same bytes of vectors.

The second compares the generator with the shared vectors at their own size: means, gap, spectra, lists, scores, and the
number of 1,024 lists that must be probed for recall@10 of .90, .95, .98 and .99. It fails if one of the four differs by
more than 10 %.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from pipeline.model.spec import EncoderSpec, ModelSource, Preprocess, spec_metadata
from pipeline.source.entry import Source, SourceFile, Status
from pipeline.store.commit_markers import commit_shard
from pipeline.store.layout import Store
from pipeline.store.parts import METADATA_KEY, SCHEMA_VERSION, part_schema
from pipeline.store.records import Shard, StoreRecord
from pipeline.store.tombstones import create_tombstones
from tests.drills.index.generator import CHUNK, Generator
from tests.drills.index.geometry import geometry
from tests.drills.index.measure import SHARED, embeddings_of
from tests.kit.fake_store import fake_record

TOLERANCE = 0.10
CHECKED_TEXTS = 4000


def main() -> None:
    arguments = parse_arguments()
    images_NE = embeddings_of(SHARED / "data/vectors/images.parquet")
    texts_QE = embeddings_of(SHARED / "data/vectors/text_queries.parquet")
    if arguments.check:
        check(images_NE, texts_QE, arguments)
        return
    if not arguments.store:
        raise SystemExit("name the folder of the store to write, or give --check")
    started = time.perf_counter()
    generator = Generator(images_NE, texts_QE, num_images=arguments.images, dim=arguments.dim, seed=arguments.seed)
    texts = arguments.store.with_name(f"{arguments.store.name}-texts.parquet")
    write_store(arguments.store, generator)
    write_texts(texts, generator.texts(arguments.texts))
    print(
        f"{arguments.store}: {arguments.images:,} images of {generator.dim} dimensions, and {texts}: "
        f"{arguments.texts:,} texts, in {time.perf_counter() - started:.0f} s"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?", help="folder of the store; must not exist")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, help="dimensions (default: those of the shared vectors)")
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare with the shared vectors instead")
    parser.add_argument("--json", type=Path, help="write the comparison here")
    return parser.parse_args()


def write_store(folder: Path, generator: Generator) -> Store:
    """Write a finished store, one shard per chunk.

    The rows are as plausible as an index needs them: keys and URIs differ, captions are missing.
    """
    store = Store(folder)
    store.create_folders()
    create_tombstones(store)
    record = store.begin(fake_record(fake_spec(generator.dim), shard_capacity=CHUNK))
    commit(store, record, generator)
    return store


def add_rows(folder: Path, num_rows: int) -> None:
    """Add a shard of new rows to a generated store."""
    images_NE = embeddings_of(SHARED / "data/vectors/images.parquet")
    texts_QE = embeddings_of(SHARED / "data/vectors/text_queries.parquet")
    store = Store(folder)
    record = store.read_record()
    dim, seed = record.encoder.embedding_dim, len(record.plans)
    commit(store, record, Generator(images_NE, texts_QE, num_images=num_rows, dim=dim, seed=seed))


def commit(store: Store, record: StoreRecord, generator: Generator) -> None:
    """Plan and write shards, one per chunk, after those that the store has."""
    shards = [shard for plan in record.plans for shard in plan.shards]
    first_ordinal, after = len(shards), sum(shard.num_images for shard in shards)
    number = len(record.plans)
    file = SourceFile(
        key=f"images-{number}",
        uri=f"file:///images-{number}.parquet",
        num_bytes=1,
        mtime_ns=0,
        num_rows=generator.num_images,
    )
    planned = [
        Shard(
            ordinal=first_ordinal + first // CHUNK,
            shard_id=f"generated-{after + first}",
            first_id=after + first,
            room=min(CHUNK, generator.num_images - first),
            num_images=min(CHUNK, generator.num_images - first),
            start=first,
            file=file,
        )
        for first in range(0, generator.num_images, CHUNK)
    ]
    record = store.add_plan(
        record, Source(location="generated", format="parquet"), [(shard, None) for shard in planned]
    )
    for shard, vectors_NE in zip(planned, generator.chunks(), strict=True):
        fields = {
            "ordinal": shard.ordinal,
            "shard_id": shard.shard_id,
            "fingerprint": record.fingerprint,
            "num_images": shard.room,
            "num_ok": shard.room,
            "failed": {},
            "timings_s": {},
            "finished_at": "2026-01-01T00:00:00+00:00",
        }
        commit_shard(store, part_of(shard, vectors_NE, record.encoder), fields)


def fake_spec(dim: int) -> EncoderSpec:
    """An encoder that exists in name only."""
    return EncoderSpec(
        source=ModelSource(model="generated"),
        architecture={"embed_dim": dim},
        weights_sha256="a" * 64,
        text_weights_sha256="b" * 64,
        image_weights_sha256="c" * 64,
        embedding_dim=dim,
        precision="bf16",
        preprocess=Preprocess(height=224, width=224, mean=(0, 0, 0), std=(1, 1, 1)),
        policy=None,
    )


def part_of(shard: Shard, vectors_NE: np.ndarray, spec: EncoderSpec) -> pa.Table:
    """The table of a shard, made a column at a time: `parts.part_table` wants an object for every image."""
    schema = part_schema(spec.embedding_dim, half=True)
    ids = range(shard.first_id, shard.first_id + len(vectors_NE))
    keys = [f"images/{number // 1000:06d}/{number:09d}.jpg" for number in ids]
    known = {
        "id": pa.array(ids, pa.int64()),
        "key": keys,
        "uri": [f"file:///{key}" for key in keys],
        "width": np.full(len(ids), 500, np.int32),
        "height": np.full(len(ids), 375, np.int32),
        "status": [str(Status.OK)] * len(ids),
        "tokens_kept": np.full(len(ids), 196, np.int32),
        "embedding": pa.FixedSizeListArray.from_arrays(
            pa.array(vectors_NE.reshape(-1)), type=schema.field("embedding").type
        ),
    }
    columns = [known.get(field.name, pa.nulls(len(ids), field.type)) for field in schema]
    metadata = {"schema_version": SCHEMA_VERSION, "shard_id": shard.shard_id, **spec_metadata(spec)}
    table = pa.table(columns, schema=schema)
    return table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})


def write_texts(path: Path, texts_QE: np.ndarray) -> None:
    """Write text vectors as a Parquet file with a column `embedding`."""
    kind = pa.list_(pa.float16(), texts_QE.shape[1])
    column = pa.FixedSizeListArray.from_arrays(pa.array(texts_QE.reshape(-1)), type=kind)
    pq.write_table(pa.table({"embedding": column}), path)


def check(images_NE: np.ndarray, texts_QE: np.ndarray, arguments: argparse.Namespace) -> None:
    """Compare generated vectors with real ones, at the real size."""
    generator = Generator(images_NE, texts_QE, num_images=len(images_NE), seed=arguments.seed)
    generated_NE = np.concatenate(list(generator.chunks())).astype(np.float32)
    real_texts = texts_QE[np.random.default_rng(arguments.seed).permutation(len(texts_QE))[:CHECKED_TEXTS]]
    real = geometry(images_NE, real_texts)
    generated = geometry(generated_NE, generator.texts(CHECKED_TEXTS).astype(np.float32))
    for name in real:
        print(f"{name}: real {_shown(real[name])}, generated {_shown(generated[name])}")
    ratios = {recall: generated["nprobe"][recall] / real["nprobe"][recall] for recall in real["nprobe"]}
    print(f"generated nprobe over real: {_shown(ratios)}")
    if arguments.json:
        result = {"real": real, "generated": generated, "nprobe ratios": ratios}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if max(abs(ratio - 1) for ratio in ratios.values()) > TOLERANCE:
        raise SystemExit(f"the generator is not within {TOLERANCE:.0%} of the real vectors")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(item)}" for name, item in value.items())
    return " / ".join(f"{item:.3g}" for item in value) if isinstance(value, list) else f"{value:.3g}"


if __name__ == "__main__":
    main()
