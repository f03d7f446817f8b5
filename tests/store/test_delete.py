"""`clipsieve delete` and `clipsieve compact`: deleted images stay away, whatever happens in between."""

import shutil
import tarfile
from pathlib import Path

import pytest

import pipeline.store.commit_markers
from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.compact import compact
from pipeline.delete import delete
from pipeline.durable.lock import store_lock
from pipeline.errors import InputError, StoreError, StoreLocked, UnfinishedStore
from pipeline.settings.store import CompactSettings, DeleteSettings, VerifySettings
from pipeline.store.commit_markers import committed_markers, read_marker
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.store.tombstones import REPLACED, add_tombstones, read_tombstones
from pipeline.verify import verify
from query.cli.main import main
from query.searcher import Searcher
from tests.kit.plain_embed import embed_plainly

GONE = ["more/photo-06.jpg", "photo-01.png", "photo-05.png"]  # in shards 0, 1 and 1
GONE_IDS = [3, 5, 8]


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos):
    """12 good photos and a broken one, for 3 shards."""
    folder = shutil.copytree(photos, tmp_path_factory.mktemp("source") / "photos")
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory, source, tiny_model):
    """An indexed store of `source`. Read-only: use `store` to change it."""
    store = embed_plainly(source, tmp_path_factory.mktemp("original") / "store", tiny_model)
    build_index(IndexSettings(store=store.root))
    return store


@pytest.fixture
def store(original, tmp_path):
    shutil.copytree(original.root, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def remove(tmp_path):
    """Deletes keys from a store. Takes the text of the file of keys."""

    def run(store, text):
        (tmp_path / "keys.txt").write_text(text, encoding="utf-8")
        return delete(DeleteSettings(store=store.root, keys=tmp_path / "keys.txt"))

    return run


def squeeze(store):
    return compact(CompactSettings(store=store.root))


def rows_of(store):
    tables = [read_part(store.part_of(stats)) for stats in committed_markers(store, store.read_record()).values()]
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def found(store):
    hits = Searcher.open(store.root).search("a cat", 100)
    return {hit.key for hit in hits}


def is_whole(store):
    report = verify(VerifySettings(store=store.root))
    assert report.findings == []
    return report


def parts(store):
    return sorted(path.name for path in store.embeddings_dir.glob("*.parquet"))


# --- delete


def test_search_leaves_out_deleted_images_with_an_old_and_a_new_index(store, remove):
    before = found(store)
    assert before >= set(GONE)
    report = remove(store, "\n".join(GONE))
    assert (report.num_keys, report.num_before, report.num_rows) == (3, 0, 3)
    assert found(store) == before - set(GONE)
    assert build_index(IndexSettings(store=store.root)).num_vectors == 9
    assert found(store) == before - set(GONE)
    assert is_whole(store).num_tombstones == 3


def test_unknown_keys_delete_nothing(store, remove):
    with pytest.raises(InputError, match=r"2 of 3 keys in .* match no embedded image .*, first 'no-1'; nothing was"):
        remove(store, "no-2\nphoto-01.png\nno-1\n")
    assert len(read_tombstones(store)) == 0


def test_lines_can_repeat_and_have_windows_line_ends(store, remove):
    report = remove(store, "\ufeffphoto-01.png\r\n\r\nphoto-01.png\r\nmore/photo-03.png")
    assert (report.num_keys, report.num_rows) == (2, 2)


@pytest.mark.parametrize("is_compacted", [False, True])
def test_keys_can_be_deleted_again(store, remove, is_compacted):
    remove(store, "photo-01.png\n")
    if is_compacted:
        squeeze(store)
    report = remove(store, "photo-01.png\nphoto-02.jpg\n")
    assert (report.num_keys, report.num_before, report.num_rows) == (2, 1, 1)


def test_failed_images_can_be_deleted(store, remove):
    remove(store, "broken.jpg")
    squeeze(store)
    assert is_whole(store).failed == {}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\n\r\n", "is empty"),
        (b"a\xff", r"not UTF-8 \(.*byte 1\)"),
        (b"\xff\xfea", r"not UTF-16 \(truncated data"),
    ],
)
def test_an_invalid_file_of_keys(store, tmp_path, data, says):
    (tmp_path / "keys").write_bytes(data)
    with pytest.raises(InputError, match=says):
        delete(DeleteSettings(store=store.root, keys=tmp_path / "keys"))


def test_a_store_in_use_is_left_alone(store, remove):
    with store_lock(store.root):
        with pytest.raises(StoreLocked):
            remove(store, "photo-01.png")
        with pytest.raises(StoreLocked):
            squeeze(store)


def test_a_replaced_row_does_not_count_for_its_key(store, remove):
    add_tombstones(store, [5], REPLACED)
    with pytest.raises(InputError, match=r"1 of 1 keys in .* match no embedded image"):
        remove(store, "photo-01.png")


# --- compact


def test_compact_removes_rows_and_keeps_the_others_unchanged(store, remove):
    before = rows_of(store)
    remove(store, "\n".join(GONE))
    metadata = [read_part(store.part_path(ordinal)).schema.metadata for ordinal in range(3)]
    report = squeeze(store)
    assert (report.num_rows, report.num_parts) == (3, 2)
    assert rows_of(store) == {number: row for number, row in before.items() if number not in GONE_IDS}
    committed = committed_markers(store, store.read_record())
    assert [read_part(store.part_of(stats)).schema.metadata for stats in committed.values()] == metadata
    assert [(stats.num_images, stats.num_ok, stats.num_removed) for stats in committed.values()] == [
        (4, 3, 1), (3, 3, 2), (3, 3, 0)
    ]  # fmt: skip
    assert parts(store) == ["part-00000.c1.parquet", "part-00001.c1.parquet", "part-00002.parquet"]
    assert is_whole(store).num_removed == 3


def test_compacting_twice_and_again_later(store, remove):
    remove(store, "photo-01.png")
    squeeze(store)
    before = {path: path.stat().st_mtime_ns for path in store.embeddings_dir.iterdir()}
    assert squeeze(store).num_parts == 0
    assert {path: path.stat().st_mtime_ns for path in store.embeddings_dir.iterdir()} == before
    remove(store, "broken.jpg\nphoto-05.png")
    assert squeeze(store).num_rows == 2
    assert parts(store) == ["part-00000.c1.parquet", "part-00001.c2.parquet", "part-00002.parquet"]
    stats = [read_marker(store, ordinal) for ordinal in range(3)]
    assert [(part.num_images, part.num_ok, part.num_removed) for part in stats] == [(4, 4, 1), (3, 3, 2), (3, 3, 0)]
    assert stats[0].failed == {}
    is_whole(store)


def test_a_part_without_any_rows_left(store, remove):
    keys = [row["key"] for row in rows_of(store).values()]
    remove(store, "\n".join(keys[:5]))
    squeeze(store)
    assert read_marker(store, 0).num_images == 0
    is_whole(store)
    assert build_index(IndexSettings(store=store.root)).num_vectors == 8
    assert found(store) == set(keys[5:])


def test_an_old_index_says_what_to_run(store, remove, capsys, tmp_path):
    (tmp_path / "keys.txt").write_text("photo-01.png")
    assert main(["delete", str(store.root), "--keys", str(tmp_path / "keys.txt")]) == 0
    assert "1 images deleted" in capsys.readouterr().out
    assert main(["compact", str(store.root)]) == 0
    assert f"run `clipsieve index {store.root}`" in capsys.readouterr().out
    with pytest.raises(UnfinishedStore, match="run `clipsieve index`"):
        found(store)
    build_index(IndexSettings(store=store.root))
    assert len(found(store)) == 11


def test_half_precision_and_tars(tmp_path, photos, tiny_model, remove):
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for path in sorted(photos.glob("photo-*")):
            archive.add(path, path.name)
    store = embed_plainly(tmp_path / "photos.tar", tmp_path / "store", tiny_model, "bf16")
    before = rows_of(store)
    remove(store, "photos.tar/photo-02.jpg")
    squeeze(store)
    assert rows_of(store) == {number: row for number, row in before.items() if number != 1}
    is_whole(store)
    assert remove(store, "photos.tar/photo-02.jpg").num_before == 1


def test_an_unfinished_store_is_not_compacted(store, remove):
    remove(store, "photo-01.png")
    store.marker_path(2).unlink()
    with pytest.raises(UnfinishedStore, match="2 of 3 shards"):
        squeeze(store)


def test_damage_is_not_given_a_new_hash(store, remove):
    remove(store, "photo-01.png")
    data = bytearray(store.part_path(1).read_bytes())
    data[100] ^= 1
    store.part_path(1).write_bytes(data)
    with pytest.raises(StoreError, match="is damaged: its hash does not match its commit marker"):
        squeeze(store)


@pytest.mark.parametrize("moment", ["write_part", "write_sealed_json", "unlink"])
def test_a_kill_at_any_moment_leaves_a_whole_store(store, remove, monkeypatch, moment):
    remove(store, "\n".join(GONE))
    expected = {number: row for number, row in rows_of(store).items() if number not in GONE_IDS}

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path if moment == "unlink" else pipeline.store.commit_markers, moment, die)
        with pytest.raises(KeyboardInterrupt):
            compact(CompactSettings(store=store.root))
    (store.root / "lock.json").unlink(missing_ok=True)  # a killed process's lock is stale, but this process is alive
    report = verify(VerifySettings(store=store.root))
    assert report.findings == []
    assert len(report.leftovers) == {"write_part": 0, "write_sealed_json": 1, "unlink": 1}[moment]
    squeeze(store)
    assert rows_of(store) == expected
    assert is_whole(store).leftovers == []


# --- embedding the source again


@pytest.mark.parametrize("is_compacted", [False, True])
def test_embedding_again_does_not_restore_deleted_images(store, source, tiny_model, remove, is_compacted):
    remove(store, "\n".join(GONE))
    if is_compacted:
        squeeze(store)
    embed_plainly(source, store.root, tiny_model)
    assert len(store.read_record().plans) == 1
    build_index(IndexSettings(store=store.root))
    assert not found(store) & set(GONE)


def test_a_lost_shard_is_embedded_again_without_deleted_images(store, source, tiny_model, remove):
    remove(store, "\n".join(GONE))
    squeeze(store)
    store.part_path(0, 1).unlink()
    embed_plainly(source, store.root, tiny_model)
    assert is_whole(store).num_removed == 2
    squeeze(store)
    assert is_whole(store).num_removed == 3
    build_index(IndexSettings(store=store.root))
    assert len(found(store)) == 9


def test_a_replaced_row_is_removed_and_its_successor_stays(tmp_path, photos, tiny_model, make_image, remove):
    source = shutil.copytree(photos, tmp_path / "photos")
    store = embed_plainly(source, tmp_path / "store", tiny_model)
    make_image(31, 33).save(source / "photo-01.png")
    embed_plainly(source, store.root, tiny_model, on_change="embed")
    assert squeeze(store).num_rows == 1
    assert is_whole(store).num_images == 12
    assert [row["width"] for row in rows_of(store).values() if row["key"] == "photo-01.png"] == [31]
    assert remove(store, "photo-01.png").num_rows == 1
    squeeze(store)
    embed_plainly(source, store.root, tiny_model)
    assert is_whole(store).num_images == 11


@pytest.mark.parametrize("on_change", ["stop", "embed"])
def test_a_deleted_image_stays_away_if_its_file_changes(tmp_path, photos, tiny_model, make_image, remove, on_change):
    source = shutil.copytree(photos, tmp_path / "photos")
    store = embed_plainly(source, tmp_path / "store", tiny_model)
    remove(store, "photo-01.png")
    squeeze(store)
    make_image(31, 33).save(source / "photo-01.png")
    embed_plainly(source, store.root, tiny_model, on_change=on_change)
    assert is_whole(store).num_images == 11
    assert len(store.read_record().plans) == 1
