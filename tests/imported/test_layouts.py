"""Every layout of embeddings becomes a whole store, with its rows in order."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.imported.import_store import import_store
from pipeline.settings.imports import ImportSettings
from pipeline.store.view import StoreView
from query.cli.main import main
from tests.kit.damage import check
from tests.kit.embeddings import (
    DIM,
    NOWHERE,
    rows_of,
    run_import,
    stored_vectors,
    unit_vectors,
    write_clip_retrieval,
    write_parquet,
)

LIST_TYPES = [
    pa.list_(pa.float32()),
    pa.large_list(pa.float32()),
    pa.list_(pa.float32(), DIM),
    pa.list_(pa.float16()),
    pa.list_(pa.float16(), DIM),
    pa.list_(pa.float64()),
]


def test_a_folder_of_clip_retrieval(tmp_path):
    source = write_clip_retrieval(
        tmp_path / "source",
        {0: 5, 1: 3, 10: 2},
        url=lambda n, i: f"https://host.org/{n}/{i}.jpg",
        similarity=lambda n, i: n + i / 10,
    )
    np.save(source / "text_emb" / "text_emb_0.npy", unit_vectors(5))
    np.save(source / "img_emb" / "0.npy", unit_vectors(5))
    report = run_import(source, tmp_path / "store", columns="similarity", shard_size=2)
    rows = rows_of(tmp_path / "store")
    assert (report.num_images, report.num_ok, report.failed, report.num_normalised) == (10, 10, {}, 0)
    assert [row["id"] for row in rows] == list(range(10))
    # 10 comes after 1, as the partitions were written
    assert [row["key"] for row in rows] == [
        f"{n:05d}{i:04d}" for n, size in ((0, 5), (1, 3), (10, 2)) for i in range(size)
    ]
    assert rows[5]["caption"] == "photo 0 of 1"
    assert rows[5]["uri"] == "https://host.org/1/0.jpg"
    assert rows[6]["similarity"] == 1.1
    vectors = np.concatenate([np.load(source / "img_emb" / f"img_emb_{n}.npy") for n in (0, 1, 10)])
    assert np.array_equal(stored_vectors(tmp_path / "store"), vectors)
    assert report.view.record.encoder.precision == "fp16"
    assert [shard.num_images for shard in report.view.record.shards] == [2, 2, 1, 2, 1, 2]
    assert report.left_out.names == {"other_format": ["img_emb/0.npy", "text_emb/text_emb_0.npy"]}
    assert check(report.view.store).findings == []


def test_image_paths_are_places_only_if_they_name_images(tmp_path):
    paths = {0: "a/b.jpg", 1: "/data/c.png", 2: "000000002"}
    source = write_clip_retrieval(tmp_path / "source", {0: 3}, image_path=lambda n, i: paths[i])
    run_import(source, tmp_path / "store")
    assert [row["uri"] for row in rows_of(tmp_path / "store")] == [
        (source / "metadata" / "a" / "b.jpg").as_uri(),
        "file:///data/c.png",
        f"{(source / 'img_emb' / 'img_emb_0.npy').as_uri()}#row=2",
    ]


@pytest.mark.parametrize("kind", LIST_TYPES, ids=str)
def test_every_type_of_list(tmp_path, kind):
    half = pa.types.is_float16(kind.value_type)
    vectors = unit_vectors(7, np.float16 if half else np.float64)
    source = write_parquet(tmp_path / "vectors.parquet", vectors, kind, key=[f"k{n}" for n in range(7)])
    report = run_import(source, tmp_path / "store", shard_size=3)
    assert report.view.record.encoder.precision == ("fp16" if half else "fp32")
    assert np.array_equal(stored_vectors(tmp_path / "store"), vectors.astype(np.float16 if half else np.float32))
    assert [row["key"] for row in rows_of(tmp_path / "store")] == [f"k{n}" for n in range(7)]
    assert check(report.view.store).findings == []


def test_an_extension_type_of_lists(tmp_path):
    vectors = unit_vectors(4)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors)
    pq.write_table(pa.table({"key": list("abcd"), "embedding": tensors}), tmp_path / "vectors.parquet")
    run_import(tmp_path / "vectors.parquet", tmp_path / "store")
    assert np.array_equal(stored_vectors(tmp_path / "store"), vectors)


def test_a_folder_of_parquet_files_with_the_columns_of_a_data_set(tmp_path):
    for number in (0, 1):
        write_parquet(
            tmp_path / "hub" / "data" / f"train-{number:05d}-of-00002.parquet",
            unit_vectors(3, seed=number),
            title=[["", f" {number} {row} "] for row in range(3)],
            license=["cc0", None, "by"],
            tags=[{"a": row} for row in range(3)],
            url=[f"https://me:secret@host.org/{number}/{row}.jpg?token=abc" for row in range(3)],
        )
    (tmp_path / "hub" / "README.md").write_text("data")
    report = run_import(tmp_path / "hub", tmp_path / "store", columns="license, tags")
    rows = rows_of(tmp_path / "store")
    assert [row["key"] for row in rows[2:4]] == [
        "data/train-00000-of-00002.parquet/2",
        "data/train-00001-of-00002.parquet/0",
    ]
    assert [row["caption"] for row in rows[2:4]] == ["0 2", "1 0"]
    assert [row["license"] for row in rows[:3]] == ["cc0", None, "by"]
    assert rows[1]["tags"] == '{"a": 1}'
    assert rows[5]["uri"] == "https://host.org/1/2.jpg"  # a store holds no credentials
    assert report.key_column is None
    assert report.left_out.counts == {"other_format": 1}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_a_matrix_with_its_list_of_keys(tmp_path, order, dtype):
    vectors = unit_vectors(7, dtype)
    np.save(tmp_path / "vectors.npy", np.asarray(vectors, order=order))
    (tmp_path / "names").write_text("a\nb c\n\nd\r\ne\n\u00e9\ng\n\n", encoding="utf-8")
    report = run_import(tmp_path / "vectors.npy", tmp_path / "store", keys=tmp_path / "names", shard_size=2)
    rows = rows_of(tmp_path / "store")
    assert [row["key"] for row in rows] == ["a", "b c", "vectors.npy/2", "d", "e", "\u00e9", "g"]
    assert rows[3]["uri"] == f"{(tmp_path / 'vectors.npy').as_uri()}#row=3"
    assert np.array_equal(stored_vectors(tmp_path / "store"), vectors.astype("f2" if dtype == "<f2" else "f4"))
    assert check(report.view.store).findings == []


@pytest.mark.parametrize("suffix", [".txt", ".parquet"])
def test_the_file_beside_a_matrix_names_its_rows(tmp_path, suffix):
    np.save(tmp_path / "vectors.npy", unit_vectors(3))
    if suffix == ".txt":
        (tmp_path / "vectors.txt").write_text("a\nb\nc")
    else:
        pq.write_table(pa.table({"key": list("abc")}), tmp_path / "vectors.parquet")
    run_import(tmp_path / "vectors.npy", tmp_path / "store")
    assert [row["key"] for row in rows_of(tmp_path / "store")] == ["a", "b", "c"]


def test_columns_are_found_by_the_names_that_are_given(tmp_path):
    vectors = unit_vectors(3)
    table = pa.table({"embedding": ["x"] * 3, "vec": vectors.tolist(), "number": [7, 8, 9], "alt": ["p", "q", "r"],
                      "link": ["s3://b/1", "s3://b/2", "s3://b/3"]})  # fmt: skip
    pq.write_table(table, tmp_path / "v.parquet")
    names = {"embedding_column": "vec", "key_column": "number", "caption_column": "alt", "uri_column": "link"}
    run_import(tmp_path / "v.parquet", tmp_path / "store", **names)
    rows = rows_of(tmp_path / "store")
    assert [(row["key"], row["caption"], row["uri"]) for row in rows] == [
        ("7", "p", "s3://b/1"), ("8", "q", "s3://b/2"), ("9", "r", "s3://b/3"),
    ]  # fmt: skip


def test_row_groups_larger_and_smaller_than_shards(tmp_path):
    vectors = unit_vectors(3000)
    table = pa.table(
        {"key": [str(n) for n in range(3000)], "embedding": pa.array(vectors.tolist(), pa.list_(pa.float32()))}
    )
    stores = []
    for size in (3000, 170):
        pq.write_table(table, tmp_path / f"{size}.parquet", row_group_size=size)
        run_import(tmp_path / f"{size}.parquet", tmp_path / f"store-{size}", shard_size=1300)
        stores.append([(row["key"], row["embedding"]) for row in rows_of(tmp_path / f"store-{size}")])
    assert stores[0] == stores[1] == list(zip(table["key"].to_pylist(), vectors.tolist(), strict=True))


def test_a_file_of_one_row_group_is_read_in_pieces(tmp_path):
    vectors = unit_vectors(40_000, dim=64)  # 10 MB
    table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 64)})
    pq.write_table(table, tmp_path / "v.parquet", use_dictionary=False)
    assert pq.read_metadata(tmp_path / "v.parquet").num_row_groups == 1
    del table
    before, held = pa.total_allocated_bytes(), []
    settings = ImportSettings(source=tmp_path / "v.parquet", out=tmp_path / "store", model=NOWHERE, shard_size=1000)
    import_store(settings, lambda tick: held.append(pa.total_allocated_bytes() - before))
    assert len(held) == 40
    assert max(held) < 4e6


def test_files_of_mixed_precision_are_stored_in_float32(tmp_path):
    write_parquet(tmp_path / "s" / "a.parquet", unit_vectors(2, np.float16), pa.list_(pa.float16()))
    write_parquet(tmp_path / "s" / "b.parquet", unit_vectors(2, seed=1))
    report = run_import(tmp_path / "s", tmp_path / "store")
    assert report.view.record.encoder.precision == "fp32"
    assert np.array_equal(stored_vectors(tmp_path / "store")[2:], unit_vectors(2, seed=1))
    assert check(report.view.store).findings == []


# --- what cannot be imported


def keys_of(folder, num_rows):
    (folder / "keys").write_text("\n".join(f"k{n}" for n in range(num_rows)))
    return folder / "keys"


def refused(tmp_path, source, match, **settings):
    with pytest.raises(InputError, match=match) as caught:
        run_import(source, tmp_path / "store", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_source_that_is_missing_empty_or_of_another_kind(tmp_path):
    for name in ("nowhere", "nowhere.npy", "nowhere.parquet"):
        refused(tmp_path, tmp_path / name, rf"cannot read .*{name}: No such file or directory; check the name")
    (tmp_path / "vectors.npz").write_bytes(b"x")
    refused(tmp_path, tmp_path / "vectors.npz", r"neither a folder nor a .parquet or .npy file")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    refused(tmp_path, tmp_path / "photos", r"no .parquet files and no folder img_emb \(left out: .*a.jpg")
    write_parquet(tmp_path / "empty.parquet", [], key=pa.array([], pa.string()))
    refused(tmp_path, tmp_path / "empty.parquet", "has no rows")
    np.save(tmp_path / "none.npy", np.zeros((0, 4), np.float32))
    (tmp_path / "none.txt").write_text("")
    refused(tmp_path, tmp_path / "none.npy", "has no rows")
    write_parquet(tmp_path / "nulls.parquet", [None, None])
    refused(tmp_path, tmp_path / "nulls.parquet", "no row of .* has an embedding")


def test_a_matrix_that_is_truncated_or_no_matrix(tmp_path):
    np.save(tmp_path / "whole.npy", unit_vectors(4))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-3])
    refused(tmp_path, tmp_path / "cut.npy", r"cannot read .*cut.npy as .npy: .*; replace it with an intact copy")
    (tmp_path / "text.npy").write_text("no matrix")
    refused(tmp_path, tmp_path / "text.npy", r"cannot read .*text.npy as .npy")
    for name, array in {
        "flat": np.zeros(4, np.float32),
        "ints": np.zeros((2, 2), np.int8),
        "cube": np.zeros((2, 2, 2), np.float32),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        refused(tmp_path, tmp_path / f"{name}.npy", "expected a matrix of float16, float32 or float64")
    np.save(tmp_path / "objects.npy", np.array([[None]], object), allow_pickle=True)
    refused(tmp_path, tmp_path / "objects.npy", r"cannot read .*objects.npy as .npy")


def test_keys_that_do_not_fit_a_matrix(tmp_path):
    np.save(tmp_path / "v.npy", unit_vectors(4))
    refused(tmp_path, tmp_path / "v.npy", r"has neither v.txt and v.parquet beside it; pass --keys")
    keys = tmp_path / "keys"
    keys.write_text("a\nb\nc\n")
    refused(tmp_path, tmp_path / "v.npy", r"keys has 3 keys, but .*v.npy has 4 rows", keys=keys)
    keys.write_text("a\nb\nc\nd\ne")
    refused(tmp_path, tmp_path / "v.npy", r"keys has 5 keys, but .*v.npy has 4 rows", keys=keys)
    keys.write_text("a\nb\na\nd")
    refused(tmp_path, tmp_path / "v.npy", r"row 2 of .*keys has the key 'a', which row 0 of", keys=keys)
    refused(tmp_path, tmp_path / "v.npy", "has keys and no columns; drop --columns", keys=keys, columns="x")
    refused(tmp_path, tmp_path / "v.npy", "cannot read the keys .*nowhere", keys=tmp_path / "nowhere")
    source = write_parquet(tmp_path / "p.parquet", unit_vectors(2))
    refused(tmp_path, source, "--keys is for a .npy matrix", keys=keys)


def test_a_folder_of_clip_retrieval_that_lacks_a_file_or_a_row(tmp_path):
    source = write_clip_retrieval(tmp_path / "source", {0: 3, 1: 2})
    table = source / "metadata" / "metadata_1.parquet"
    pq.write_table(pq.read_table(table).slice(1), table)
    refused(tmp_path, source, r"metadata_1.parquet has 1 rows, but .*img_emb_1.npy has 2 rows")
    table.unlink()
    refused(tmp_path, source, r"img_emb_1.npy has no metadata/metadata_1.parquet beside it")
    (source / "img_emb" / "img_emb_1.npy").rename(source / "img_emb" / "img_emb_2.npy")
    write_parquet(table, unit_vectors(2))
    refused(tmp_path, source, r"metadata_1.parquet has no img_emb/img_emb_1.npy beside it")


def test_columns_that_are_missing_or_of_no_use(tmp_path):
    source = tmp_path / "v.parquet"
    table = {"id": [1, 2], "emb": unit_vectors(2).tolist(), "score": [0.5, 0.6], "names": [["a"], ["b"]]}
    pq.write_table(pa.table(table), source)
    refused(tmp_path, source, "no column 'embedding'; pass --embedding-column with one of id, emb, score, names")
    found = {"embedding_column": "emb"}
    refused(tmp_path, source, "'names' is list<.*; pass --embedding-column with one of emb", embedding_column="names")
    refused(tmp_path, source, "no column 'key'; pass --key-column with one of id, emb", key_column="key", **found)
    refused(tmp_path, source, "keys must be text or integers; pass another --key-column", key_column="score", **found)
    refused(tmp_path, source, "no column 'nsfw'; pass --columns with one of id", columns="names,nsfw", **found)
    refused(tmp_path, source, "captions must be text", caption_column="score", **found)
    refused(tmp_path, source, "paths and URLs must be text; pass another --uri-column", uri_column="score", **found)
    with pytest.raises(ConfigError, match="every row already has a column with that name"):
        run_import(source, tmp_path / "store", columns="id", **found)


def test_a_store_is_not_inside_its_source(tmp_path, capsys):
    write_parquet(tmp_path / "s" / "a.parquet", unit_vectors(2))
    argv = ["import", str(tmp_path / "s"), "--out", str(tmp_path / "s" / "store"), "--model", NOWHERE]
    assert main(argv) == 2
    assert "store' is inside the source" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["a.parquet"]


def test_embeddings_without_values(tmp_path):
    source = write_parquet(tmp_path / "v.parquet", [[], []], pa.list_(pa.float32(), 0))
    refused(tmp_path, source, "has embeddings of 0 values")
    np.save(tmp_path / "v.npy", np.zeros((2, 0), np.float32))
    refused(tmp_path, tmp_path / "v.npy", "has embeddings of 0 values", keys=keys_of(tmp_path, 2))


def test_files_that_do_not_match(tmp_path):
    write_parquet(tmp_path / "s" / "a.parquet", unit_vectors(2), key=["a", "b"])
    write_parquet(tmp_path / "s" / "b.parquet", unit_vectors(2))
    refused(tmp_path, tmp_path / "s", r"b.parquet and .*a.parquet have other columns")
    write_parquet(tmp_path / "s" / "b.parquet", unit_vectors(2), key=["c", "a"])
    refused(tmp_path, tmp_path / "s", r"row 1 of .*b.parquet has the key 'a', which row 0 of .*a.parquet has too")


def test_dimensions_that_differ_name_file_and_row(tmp_path):
    kind = pa.list_(pa.float32(), 4)
    write_parquet(tmp_path / "s" / "a.parquet", unit_vectors(2), pa.list_(pa.float32(), DIM))
    write_parquet(tmp_path / "s" / "b.parquet", unit_vectors(2, dim=4), kind)
    refused(tmp_path, tmp_path / "s", rf"b.parquet: row 0 has an embedding of 4 values, expected {DIM}")
    rows = [*unit_vectors(5), unit_vectors(1, dim=4)[0], *unit_vectors(2)]
    source = write_parquet(tmp_path / "v.parquet", rows)
    with pytest.raises(InputError, match=rf"v.parquet: row 5 has an embedding of 4 values, expected {DIM}"):
        run_import(source, tmp_path / "store", shard_size=3)
    assert list(StoreView.open(tmp_path / "store", partial=True).committed) == [0]  # what came before it is kept
