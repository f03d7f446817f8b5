"""`clipsieve verify`: a whole store passes, and every kind of damage is found."""

import json
import shutil
import tarfile
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.durable.seal import UNSEALED, check_seal, sealed, sha256_of, unsealed_json
from pipeline.errors import StoreError
from pipeline.store.commit_markers import committed_markers, read_marker
from pipeline.store.tombstones import DELETED, add_tombstones, read_tombstones
from pipeline.store.view import StoreView
from query.cli.main import main
from tests.kit.damage import check, rewrite, with_value
from tests.kit.plain_embed import embed_plainly

FLIPS_PER_FILE = 30


def only_finding(store):
    [finding] = check(store).findings
    assert "\n" not in finding
    return finding


def files_of(store):
    return [path for path in sorted(store.root.rglob("*")) if path.is_file()]


# --- a whole store


def test_a_whole_store(original):
    report = check(original)
    counts = {name: value for name, value in asdict(report).items() if name.startswith(("num_", "failed"))}
    assert report.findings == report.leftovers == []
    assert counts == {
        "num_shards": 4,
        "num_whole": 4,
        "num_images": 14,
        "num_ok": 12,
        "failed": {"undecodable": 1, "too_large": 1},
        "num_removed": 2,
        "num_tombstones": 3,
        "num_bytes": sum(path.stat().st_size for path in original.embeddings_dir.glob("*.parquet")),
    }


def test_the_store_has_every_kind_of_file(original):
    assert [str(path.relative_to(original.root)) for path in files_of(original)] == [
        "embeddings/part-00000.c1.parquet",
        "embeddings/part-00000.stats.json",
        "embeddings/part-00001.parquet",
        "embeddings/part-00001.stats.json",
        "embeddings/part-00002.parquet",
        "embeddings/part-00002.stats.json",
        "embeddings/part-00003.parquet",
        "embeddings/part-00003.stats.json",
        "plan/00000.json",
        "plan/00000.parquet",
        "plan/00001.json",
        "plan/00001.parquet",
        "run.json",
        "stats.json",
        "tombstones.parquet",
    ]


def test_verifying_changes_nothing(store):
    before = {path: path.read_bytes() for path in files_of(store)}
    check(store)
    assert {path: path.read_bytes() for path in files_of(store)} == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("keep_threads")
def test_tars_and_parquet_files(tmp_path, collection, tiny_model, precision):
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for path in sorted(collection.glob("photo-*")):
            archive.add(path, path.name)
    images = [path.read_bytes() for path in sorted(collection.glob("photo-*"))]
    names = [f"row {number}" for number in range(len(images))]
    pq.write_table(pa.table({"image": images, "name": names}), tmp_path / "photos.parquet")
    embed_plainly(tmp_path / "photos.tar", tmp_path / "store", tiny_model, precision)
    store = embed_plainly(tmp_path / "photos.parquet", tmp_path / "store", tiny_model, precision, key_column="name")
    report = check(store, resample=5)
    assert report.findings == []
    assert (report.num_whole, report.num_images) == (3, 2 * len(images))
    assert report.resample.num_equal == 5


# --- damaged bytes


def test_every_flipped_byte_of_small_files_is_found_by_its_reader(store):
    readers = {
        store.record_path: store.read_record,
        store.plan_dir / "00000.json": store.read_record,
        store.marker_path(1): lambda: read_marker(store, 1),
        store.root / "stats.json": lambda: unsealed_json((store.root / "stats.json").read_bytes()),
        store.root / "tombstones.parquet": lambda: read_tombstones(store),
    }
    random = np.random.default_rng(0)
    for path, read in readers.items():
        data = path.read_bytes()
        read()
        for place in range(len(data)):
            path.write_bytes(flipped(data, place, random))
            with pytest.raises((StoreError, ValueError)):
                read()
        path.write_bytes(data)
        read()


def test_a_flipped_byte_of_any_file_is_found(store):
    random = np.random.default_rng(0)
    for path in files_of(store):
        data = path.read_bytes()
        for place in {0, len(data) - 1, *random.integers(0, len(data), FLIPS_PER_FILE).tolist()}:
            path.write_bytes(flipped(data, place, random))
            findings = check(store).findings
            assert any(str(path) in finding for finding in findings), (path.name, place)
            assert all("\n" not in finding for finding in findings)
        path.write_bytes(data)
    assert check(store).findings == []


def flipped(data, place, random):
    return data[:place] + bytes([data[place] ^ int(1 << random.integers(8))]) + data[place + 1 :]


def test_truncated_empty_and_missing_files_are_found(store):
    for path in files_of(store):
        data = path.read_bytes()
        for cut in (data[:-1], data + b"\n", data[: len(data) // 2], b""):
            path.write_bytes(cut)
            assert check(store).findings, path.name
        path.unlink()
        if path == store.record_path:
            with pytest.raises(StoreError, match="no store at"):
                check(store)
        elif path.name != "stats.json":
            assert check(store).findings, path.name
        path.write_bytes(data)


def test_a_seal_covers_all_but_itself():
    data = sealed(b'{"a": "' + UNSEALED.encode() + b'", "seal": "' + UNSEALED.encode() + b'"}')
    check_seal(data)
    assert data.count(UNSEALED.encode()) == 1
    for text in (b"", b"{}", b"sha256:", data.replace(b'"a"', b'"b"'), data.upper(), data + b" "):
        with pytest.raises(ValueError, match="do not match its seal"):
            check_seal(text)


def test_a_marker_with_a_broken_seal_does_not_count(store):
    record = store.read_record()
    path = store.marker_path(2)
    path.write_bytes(path.read_bytes().replace(b"encode_s", b"encode_S"))
    assert set(committed_markers(store, record)) == {0, 1, 3}


# --- damage that hashes do not show


def test_a_missing_marker_is_an_unfinished_store(store):
    store.marker_path(1).unlink()
    report = check(store)
    assert len(report.findings) == 1
    assert "unfinished: 1 of 4 shards are not embedded, first 1; run the same embed command" in report.findings[0]
    assert report.leftovers == [str(store.part_path(1))]
    assert report.num_whole == 3


def test_swapped_parts_are_found(store):
    one, other = store.part_path(1), store.part_path(2)
    one.rename(one.with_suffix(".old"))
    other.rename(one)
    one.with_suffix(".old").rename(other)
    assert [finding.partition(":")[0] for finding in check(store).findings] == [str(one), str(other)]
    for ordinal in (1, 2):  # also with matching hashes
        rewrite(store, ordinal)
    findings = check(store).findings
    assert any("its file metadata has shard_id" in finding for finding in findings)
    assert any("its ids are not ascending or not in 5..9" in finding for finding in findings)


def test_swapped_markers_are_found(store):
    one, other = (store.marker_path(ordinal).read_bytes() for ordinal in (1, 2))
    store.marker_path(1).write_bytes(other)
    store.marker_path(2).write_bytes(one)
    assert sum("belongs to another shard" in finding for finding in check(store).findings) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_value("embedding", 0, lambda old: [1.1 * x for x in old]), "1 embeddings do not have norm 1, first id 5"),
        (with_value("embedding", 0, lambda old: [float("nan")] * 32), "do not have norm 1"),
        (with_value("embedding", 0, lambda old: None), "have status ok and no embedding"),
        (with_value("tokens_kept", 0, lambda old: None), "have status ok and no number of tokens"),
        (with_value("error", 0, lambda old: "why?"), "have status ok and an error"),
        (with_value("status", 0, lambda old: "timeout"), "its commit marker says 5"),
        (with_value("status", 0, lambda old: "fine"), "it has status 'fine', expected one of ok, "),
        (with_value("id", 0, lambda old: old + 1), "its ids are not ascending"),
        (with_value("id", 0, lambda old: old - 1), "its ids are not ascending or not in 5..9"),
        (with_value("key", 0, lambda old: "x"), "row 5 is ('x', 'file:///"),
        (with_value("uri", 0, lambda old: "x"), ", 'x'), but the plan lists"),
        (lambda table: table.slice(1), "it has 4 rows, its commit marker says 5"),
        (lambda table: table.drop_columns("uri"), "expected pyarrow.Field<uri: string not null>"),
        (lambda table: table.replace_schema_metadata(None), "does not name its encoder"),
    ],
)
def test_wrong_rows_with_matching_hashes(store, change, says):
    rewrite(store, 1, change)
    findings = check(store).findings
    assert any(says in finding for finding in findings), findings
    assert all(finding.startswith(str(store.part_path(1))) for finding in findings)


def test_rows_that_are_missing_without_a_tombstone(store):
    rewrite(store, 1, lambda table: table.slice(1), num_images=4, num_ok=4, num_removed=1, compaction=1)
    store.part_path(1).rename(store.part_path(1, 1))
    rewrite(store, 1)
    assert "1 rows are missing without a tombstone, first id 5" in only_finding(store)
    add_tombstones(store, [5], DELETED)
    assert check(store).findings == []


def test_a_shard_that_lacks_rows_of_its_plan(store):
    rewrite(store, 1, lambda table: table.slice(0, 4), num_images=4, num_ok=4)
    assert "4 images were embedded, 5 were planned" in only_finding(store)


def test_a_list_with_a_matching_hash_is_checked_against_its_plan(store):
    record = store.read_record()
    path = store.entries_path(record.plans[0])
    table = pq.read_table(path)
    pq.write_table(with_value("num_bytes", 3, lambda old: old + 1)(table), path, row_group_size=5)
    store.write_plan(record.plans[0].model_copy(update={"entries_sha256": sha256_of(path)}))
    assert f"{path}: its images of shard 0 do not match the plan" in only_finding(store)


def test_a_key_twice_in_the_store(tmp_path, collection, tiny_model, monkeypatch):
    monkeypatch.setattr("pipeline.planning.extend.refuse_keys", lambda *arguments: None)  # as in earlier code
    root = tmp_path / "store"
    source = tmp_path / "rows.parquet"
    image = (collection / "photo-01.png").read_bytes()
    for name in ("rows", "again"):
        pq.write_table(pa.table({"image": [image] * 6, "name": list("abcdef")}), tmp_path / f"{name}.parquet")
    store = embed_plainly(source, root, tiny_model, key_column="name")
    store = embed_plainly(tmp_path / "again.parquet", root, tiny_model, key_column="name")
    finding = only_finding(store)
    assert "6 keys name more than one image" in finding
    assert finding.count(" (ids ") == 5
    add_tombstones(store, range(1, 6), DELETED)
    assert "1 keys name more than one image: 'a' (ids 0, 6);" in only_finding(store)
    add_tombstones(store, [6], DELETED)
    assert check(store).findings == []


def test_a_missing_last_plan_is_found_by_its_parts(store):
    for path in store.plan_dir.glob("00001.*"):
        path.unlink()
    names = [finding.partition(":")[0].rpartition("/")[2] for finding in check(store).findings]
    assert names == ["part-00003.parquet", "part-00003.stats.json"]


def test_unknown_files_and_leftovers(store):
    (store.embeddings_dir / "notes.txt").write_text("")
    (store.embeddings_dir / "part-00001.c3.parquet").write_text("")
    (store.embeddings_dir / ".part-00001.parquet.0123.tmp").write_text("")
    (store.plan_dir / "00002.parquet").write_text("")
    report = check(store)
    assert len(report.findings) == 1
    assert "notes.txt: no plan mentions it" in report.findings[0]
    assert [path.rpartition("/")[2] for path in report.leftovers] == [
        ".part-00001.parquet.0123.tmp", "part-00001.c3.parquet", "00002.parquet"
    ]  # fmt: skip


def test_a_part_of_a_dropped_shard_without_a_marker_is_a_leftover(store):
    plan = store.read_record().plans[1]
    store.write_plan(plan.model_copy(update={"shards": (plan.shards[0].model_copy(update={"is_dropped": True}),)}))
    store.marker_path(plan.shards[0].ordinal).unlink()
    report = check(store)
    assert report.findings == []
    assert report.leftovers == [str(store.part_path(plan.shards[0].ordinal))]


def test_a_store_without_a_plan(store):
    for folder in (store.plan_dir, store.embeddings_dir):
        shutil.rmtree(folder)
    (store.root / "tombstones.parquet").unlink()
    assert "no images are planned; run the same embed command again" in only_finding(store)
    with pytest.raises(StoreError, match="0 of 0 shards"):
        StoreView.open(store.root)


# --- the command line


def test_the_verb_reports_whether_the_store_is_whole(store, capsys):
    assert main(["verify", str(store.root)]) == 0
    assert "4 of 4" in capsys.readouterr().out
    store.part_path(1).write_bytes(b"")
    (store.embeddings_dir / "stranger").write_text("")
    assert main(["verify", str(store.root)]) == 4
    captured = capsys.readouterr()
    assert captured.out.count("not whole: ") == 2
    error = captured.err.splitlines()[-1]
    assert error.startswith("error: the store is not whole, 2 findings, first: ")
    assert error.endswith("run the same embed command again")


def test_the_verb_in_json(store, capsys):
    store.marker_path(1).unlink()
    assert main(["verify", str(store.root), "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert (report["num_shards"], report["num_whole"]) == (4, 3)
    assert len(report["findings"]) == 1


def test_no_store(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 4
    assert "no store at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
