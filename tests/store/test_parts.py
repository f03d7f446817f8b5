"""The Parquet contract."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StoreError
from pipeline.source.entry import ImageResult, Status
from pipeline.store.parts import embeddings_of, part_schema, part_table, read_part, write_part

OK = ImageResult(
    key="a/ä\n.jpg", uri="file:///a", caption="a dog", width=40, height=30, sha256="f" * 64, status=Status.OK
)
FAILED = ImageResult(key="b.jpg", uri="file:///b", status=Status.UNREADABLE, error="is a named pipe")
VALUES = np.array([[0.6, 0.8, 0, 0], [np.nan, 9, 9, 9], [0, 0, 1, 0]], dtype=np.float32)


@pytest.fixture
def table(spec):
    return part_table([OK, FAILED, OK], VALUES, first_id=70, tokens_kept=11, spec=spec, shard_id="ab12")


def test_columns_match_the_contract(spec, table):
    expected = [
        ("id", "int64", False),
        ("key", "string", False),
        ("uri", "string", False),
        ("caption", "string", True),
        ("width", "int32", True),
        ("height", "int32", True),
        ("sha256", "string", True),
        ("status", "string", False),
        ("error", "string", True),
        ("tokens_kept", "int32", True),
        ("embedding", "fixed_size_list<element: float>[4]", True),
    ]
    for schema in (table.schema, part_schema(4, half=False)):
        found = [(field.name, str(field.type).replace("item", "element"), field.nullable) for field in schema]
        assert found == expected
    assert tuple(Status) == ("ok", "unreadable", "undecodable", "too_large", "timeout", "crashed", "bad_embedding")


@pytest.mark.parametrize(("precision", "value_type"), [("fp32", pa.float32()), ("bf16", pa.float16())])
def test_embeddings_are_stored_as_precisely_as_they_were_computed(spec, precision, value_type):
    lower = spec.model_copy(update={"precision": precision})
    table = part_table([OK] * 3, np.nan_to_num(VALUES), first_id=0, tokens_kept=11, spec=lower, shard_id="ab12")
    assert table.schema.field("embedding").type.value_type == value_type


def test_rows_and_nulls(table):
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [70, 71, 72]
    assert rows[0] | {"embedding": None} == {
        "id": 70,
        "key": "a/ä\n.jpg",
        "uri": "file:///a",
        "caption": "a dog",
        "width": 40,
        "height": 30,
        "sha256": "f" * 64,
        "status": "ok",
        "error": None,
        "tokens_kept": 11,
        "embedding": None,
    }
    np.testing.assert_array_equal(rows[0]["embedding"], VALUES[0])
    failed = rows[1]
    assert (failed["status"], failed["error"]) == ("unreadable", "is a named pipe")
    assert failed["embedding"] is None
    assert failed["tokens_kept"] is None
    table.validate(full=True)


def test_the_slot_of_a_failed_image_is_not_stored(spec, table):
    # garbage would make the bytes of a part vary
    other = VALUES.copy()
    other[1] = 123
    again = part_table([OK, FAILED, OK], other, first_id=70, tokens_kept=11, spec=spec, shard_id="ab12")
    stored, stored_again = (part["embedding"].combine_chunks().values.to_pylist() for part in (table, again))
    assert stored == stored_again


def test_file_metadata_names_the_encoder(tmp_path, spec, table):
    write_part(tmp_path / "part.parquet", table)
    metadata = json.loads(pq.read_schema(tmp_path / "part.parquet").metadata[b"clipsieve"])
    assert metadata == {
        "schema_version": 2,
        "shard_id": "ab12",
        "encoder": spec.model_dump(mode="json"),
        "fingerprint": spec.fingerprint,
        "text_space": spec.text_space,
        "image_policy": spec.image_space,
    }


def test_read_back_is_what_was_written(tmp_path, table):
    write_part(tmp_path / "part.parquet", table)
    assert read_part(tmp_path / "part.parquet").equals(table)
    assert read_part(tmp_path / "part.parquet", ["key", "id"]).column_names == ["key", "id"]


def test_written_twice_is_the_same_bytes(tmp_path, spec, table):
    write_part(tmp_path / "one", table)
    again = part_table([OK, FAILED, OK], VALUES.copy(), first_id=70, tokens_kept=11, spec=spec, shard_id="ab12")
    write_part(tmp_path / "two", again)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_embeddings_of_ok_rows_only(tmp_path, table):
    write_part(tmp_path / "part.parquet", table)
    ids, embeddings = embeddings_of(read_part(tmp_path / "part.parquet", ["id", "status", "embedding"]))
    assert ids.tolist() == [70, 72]
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, VALUES[[0, 2]])


def test_embeddings_of_a_part_without_any(tmp_path, spec):
    table = part_table([FAILED], np.zeros((1, 4), np.float32), first_id=0, tokens_kept=11, spec=spec, shard_id="ab12")
    write_part(tmp_path / "part.parquet", table)
    ids, embeddings = embeddings_of(read_part(tmp_path / "part.parquet"))
    assert ids.shape == (0,)
    assert embeddings.shape == (0, 4)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"", lambda data: b"x" * 100])
def test_damaged_part(tmp_path, table, damage):
    path = tmp_path / "part.parquet"
    write_part(path, table)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=r"cannot read .*part.parquet: .*; delete it and its commit marker"):
        read_part(path)


def test_missing_part_or_column(tmp_path, table):
    with pytest.raises(StoreError, match="cannot read"):
        read_part(tmp_path / "none.parquet")
    write_part(tmp_path / "part.parquet", table.drop_columns("status"))
    with pytest.raises(StoreError, match="status"):
        read_part(tmp_path / "part.parquet", ["id", "status"])
