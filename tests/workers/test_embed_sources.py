"""`pipeline.embed.embed` on tars, Parquet files and lists, and on sources that grow and change."""

import csv
import io
import json
import os
import socket
import tarfile
import urllib.request

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.embed import embed
from pipeline.errors import ConfigError, InputError, StoreError
from pipeline.pixels.decode import open_rgb
from pipeline.settings.embed import EmbedSettings
from pipeline.store.commit_markers import committed_markers
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.store.tombstones import read_tombstones
from pipeline.workers.pool import WorkerPool
from query.searcher import search
from tests.kit.signed_links import Site, assert_nothing_secret_in, serving_signed, signed
from tests.kit.sources import tar_of

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def pool(ray_session):
    """One worker for all tests here, because starting one takes seconds."""
    pool = WorkerPool(1)
    yield pool
    pool.stop()


@pytest.fixture
def run(tmp_path, tiny_model, pool):
    """Embed a source into a store of this test; takes further settings by name."""

    def embed_source(source, on_tick=lambda tick: None, **settings):
        fixed = {"out": tmp_path / "store", "model": tiny_model, "precision": "fp32", "batch_size": 4}
        return embed(EmbedSettings(source=str(source), **(fixed | settings)), on_tick, pool)

    return embed_source


def rows(report):
    store = report.store
    parts = committed_markers(store, report.record).values()
    return [row for stats in parts for row in read_part(store.part_of(stats)).to_pylist()]


def jpeg(make_image, number):
    buffer = io.BytesIO()
    make_image(40 + number, 50, number).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def tars(tmp_path, make_image):
    """Two tars of 5 and 3 images, with captions and licences."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for tar, numbers in enumerate((range(5), range(5, 8))):
        members = {}
        for number in numbers:
            members[f"{number:03d}.jpg"] = jpeg(make_image, number)
            members[f"{number:03d}.txt"] = f"picture {number}".encode()
            members[f"{number:03d}.json"] = json.dumps({"license": f"by-{number}"}).encode()
        write_tar(folder / f"{tar:05d}.tar", members)
    return folder


@pytest.fixture
def folder(tmp_path, make_image):
    """A folder of 6 images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(jpeg(make_image, number))
    return folder


def vectors(report):
    return np.array([row["embedding"] for row in rows(report)], np.float32)


def test_tars(run, tars, folder, tmp_path):
    ticks = []
    report = run(tars / "{00000..00001}.tar", ticks.append, columns="license")
    found = rows(report)
    assert [row["key"] for row in found] == [f"0000{n // 5}.tar/{n:03d}.jpg" for n in range(8)]
    assert [row["caption"] for row in found] == [f"picture {n}" for n in range(8)]
    assert [row["license"] for row in found] == [f"by-{n}" for n in range(8)]
    assert report.record.num_images is None  # tars are not opened for counting
    assert (report.num_images, report.num_ok) == (8, 8)
    assert ticks[-1].num_total is None
    ids = [row["id"] for row in found]
    assert ids[:5] == list(range(5))
    assert ids[5:] == list(range(ids[5], ids[5] + 3))
    assert ids[5] >= 5
    plain = run(folder, out=tmp_path / "plain")
    np.testing.assert_allclose(vectors(report)[:6], vectors(plain), atol=1e-5)
    assert open_rgb(found[6]["uri"]).size == (46, 50)  # as a contact sheet opens it
    again = run(tars / "{00000..00001}.tar", columns="license")
    assert again.num_embedded == 0


def test_search_finds_rows_of_tars(run, tars):
    report = run(tars / "*.tar")
    build_index(IndexSettings(store=report.store.root))
    [hits] = search(report.store.root, ["a picture"], 8)
    assert sorted(hit.key for hit in hits) == sorted(row["key"] for row in rows(report))
    assert {hit.key: hit.id for hit in hits} == {row["key"]: row["id"] for row in rows(report)}


def test_a_damaged_tar_fails_only_its_own_shard_and_is_named(run, tars):
    whole = (tars / "00000.tar").read_bytes()
    (tars / "00000.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"1 of 2 shards could not be read, .*00000.tar is damaged"):
        run(tars / "*.tar")
    store = Store(tars.parent / "store")
    assert set(committed_markers(store, store.read_record())) == {1}
    (tars / "00000.tar").write_bytes(whole)  # replace it with a complete copy
    with pytest.raises(StoreError, match=r"1 images or files .* changed since they were planned .*--on-change embed"):
        run(tars / "*.tar")
    report = run(tars / "*.tar", on_change="embed")
    assert sorted(row["key"][-7:] for row in rows(report)) == [f"{n:03d}.jpg" for n in range(8)]
    assert [shard.is_dropped for plan in report.record.plans for shard in plan.shards] == [True, False, False]


def test_parquet_with_image_bytes(run, tmp_path, make_image):
    table = pa.table(
        {
            "image": [{"bytes": jpeg(make_image, n), "path": f"{n}.jpg"} for n in range(7)],
            "text": [f"picture {n}" for n in range(7)],
            "width_cm": [n / 2 for n in range(7)],
        }
    )
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=3)
    report = run(tmp_path / "data.parquet", shard_size=4, columns="width_cm")
    found = rows(report)
    assert [row["id"] for row in found] == list(range(7))
    assert [row["key"] for row in found] == [f"data.parquet/{n}" for n in range(7)]
    assert [row["width_cm"] for row in found] == [n / 2 for n in range(7)]
    assert read_part(report.store.part_path(0)).schema.field("width_cm").type == pa.float64()
    assert [row["caption"] for row in found] == [f"picture {n}" for n in range(7)]
    assert open_rgb(found[5]["uri"]).size == (45, 50)


def test_list_of_paths(run, folder, tmp_path):
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("filepath", "title", "license"), ("photos/3.jpg", "three, of six", "by"), ("photos/none.jpg", "", "cc")]
        )
    report = run(tmp_path / "list.csv", columns="license")
    missing, third = sorted(rows(report), key=lambda row: row["key"], reverse=True)
    assert (third["key"], third["caption"], third["status"]) == ("photos/3.jpg", "three, of six", "ok")
    assert (missing["status"], missing["error"]) == ("unreadable", "No such file or directory")
    assert (third["license"], missing["license"]) == ("by", "cc")


def test_signed_links_reach_the_workers_and_no_file(run, tmp_path, make_image):
    targets = [f"/a%2Fb+{number}.jpg" for number in range(6)]
    with serving_signed() as url:
        Site.files |= {target: jpeg(make_image, number) for number, target in enumerate(targets)}
        del Site.files[targets[5]]
        Site.files["/0.tar"] = tar_of({"a.jpg": jpeg(make_image, 9)})
        for number in (1, 2):  # with other signatures, they are the same images
            links = "\n".join(signed(url, target, number) for target in targets)
            (tmp_path / "list.csv").write_text(f"url\n{links}\n")
            report = run(tmp_path / "list.csv", shard_size=4)
            assert (report.num_images, report.failed, report.num_embedded) == (6, {"unreadable": 1}, 6 * (number == 1))
        report = run(signed(url, "/0.tar"))
        found = {row["key"]: row for row in rows(report)}
        assert set(found) == {*(f"{url}{target}" for target in targets), "0.tar/a.jpg"}
        assert [row["status"] for row in found.values()].count("ok") == 6
        assert found[f"{url}{targets[5]}"]["error"] == "404 Not Found"
    assert_nothing_secret_in(report.store.root)


def test_a_folder_that_grew_only_gets_new_shards(run, folder, make_image):
    first = run(folder)
    before = {path.name: path.stat().st_mtime_ns for path in first.store.embeddings_dir.iterdir()}
    (folder / "25.jpg").write_bytes(jpeg(make_image, 25))
    report = run(folder)
    assert (report.num_embedded, report.num_images) == (1, 7)
    assert rows(report)[-1]["key"] == "25.jpg"
    assert [row["id"] for row in rows(report)] == list(range(7))
    after = {path.name: path.stat().st_mtime_ns for path in first.store.embeddings_dir.iterdir()}
    assert before.items() <= after.items()


def test_a_second_source_is_added_with_a_key_prefix(run, folder, tmp_path, make_image):
    run(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.jpg").write_bytes(jpeg(make_image, 30))
    with pytest.raises(InputError, match=r"the key '0.jpg' is already in the store.* pass --key-prefix"):
        run(other)
    report = run(other, key_prefix="other/")
    assert [row["key"] for row in rows(report)][-1] == "other/0.jpg"
    assert run(folder).num_embedded == 0


def test_changed_images(run, folder, make_image):
    first = run(folder)
    old = rows(first)
    (folder / "2.jpg").write_bytes(jpeg(make_image, 40))
    with pytest.raises(StoreError, match=r"1 images or files of the store .* changed .*first '2.jpg'; restore them"):
        run(folder)
    assert run(folder, on_change="keep").num_embedded == 0
    report = run(folder, on_change="embed")
    assert report.num_embedded == 1
    assert read_tombstones(report.store).tolist() == [old[2]["id"]]
    assert run(folder).num_embedded == 0
    build_index(IndexSettings(store=report.store.root))
    [hits] = search(report.store.root, ["x"], 10)
    assert sorted(hit.key for hit in hits) == [f"{n}.jpg" for n in range(6)]
    assert {hit.id for hit in hits if hit.key == "2.jpg"} == {rows(report)[-1]["id"]}


def test_changes_that_preserve_size_and_time_are_found_by_content(run, folder):
    run(folder)
    path = folder / "4.jpg"
    found, data = path.stat(), bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert run(folder).num_embedded == 0
    with pytest.raises(StoreError, match=r"1 images or files .* changed"):
        run(folder, check_content=True)
    assert run(folder, check_content=True, on_change="embed").num_embedded == 1


def test_images_gone_before_they_were_embedded(run, folder):
    report = run(folder, shard_size=3)
    report.store.marker_path(1).unlink()
    (folder / "5.jpg").unlink()
    with pytest.raises(StoreError, match=r"1 images or files .* disappeared before they were embedded, first '5.jpg'"):
        run(folder)
    kept = run(folder, on_change="keep")
    assert {row["key"]: row["status"] for row in rows(kept)}["5.jpg"] == "unreadable"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": "nothing"}, r"has no column 'nothing'; pass --columns with one of image, text"),
        ({"image_column": "picture"}, r"has no column 'picture'; pass --image-column with one of image, text"),
        ({"image_column": "size"}, r"column 'size' is int64, expected bytes"),
    ],
)
def test_parquet_without_the_column(run, tmp_path, settings, message):
    pq.write_table(pa.table({"image": [b""], "text": ["x"], "size": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        run(tmp_path / "a.parquet", **settings)
    assert not (tmp_path / "store").exists()


def test_columns_of_our_own_names_are_refused(run, tars):
    with pytest.raises(ConfigError, match=r"--columns sha256: every row already has a column with that name"):
        run(tars / "*.tar", columns="license,sha256")


# --- monitoring of a run


def test_too_many_bad_images_stop_the_run(run, folder):
    for number in range(3):
        (folder / f"bad-{number}.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"3 of 9 images failed \(3 undecodable\), more than --max-bad-fraction 0.3"):
        run(folder, max_bad_fraction=0.3)
    report = run(folder, max_bad_fraction=0.4)  # committed shards stay, and count again
    assert (report.num_images, report.num_ok, report.num_embedded) == (9, 6, 0)


def test_a_decoder_that_hangs_fails_one_image(run, folder):
    # slow rather than hanging: 144 million pixels exceed the time limit on any machine
    Image.new("RGB", (12_000, 12_000)).save(folder / "slow.png", compress_level=1)
    report = run(folder, image_timeout=0.5, max_pixels=10**9)
    failed = {row["key"]: (row["status"], row["error"]) for row in rows(report) if row["status"] != "ok"}
    assert failed == {"slow.png": ("timeout", "decoding did not finish within 0.5 s")}
    assert report.num_images == 7


def test_canary(run, folder):
    report = run(folder, canary=1.0, canary_floor=0.9999, policy="fast", shard_size=3)
    [one, other] = committed_markers(report.store, report.record).values()
    for stats in (one, other):
        assert stats.canary["num_images"] == 3
        assert -1 <= stats.canary["min"] <= stats.canary["median"] <= stats.canary["max"] <= 1.0001
    assert any(
        "median cosine between pruned and unpruned embeddings is below 0.9999 in 2 shards" in text
        for text in report.warnings
    )
    text = (report.store.root / "stats.json").read_text()
    assert "median cosine" in text
    with pytest.raises(ConfigError, match="--canary compares with the unpruned model"):
        run(folder, canary=0.5, policy="none", out=folder.parent / "unpruned")


def test_canary_of_a_shard_ignores_an_earlier_unfinished_shard(run, photos, tmp_path):
    for name in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            for path in sorted(photos.glob("*.*"))[:8]:
                archive.add(path, path.name)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: len(data) // 3])
    with pytest.raises(InputError, match="1 of 2 shards could not be read"):
        run(tmp_path / "*.tar", canary=1.0, policy="fast", batch_size=1)
    store = Store(tmp_path / "store")
    [stats] = committed_markers(store, store.read_record()).values()
    assert stats.canary["num_images"] == stats.num_images == 8


def test_canary_does_not_change_the_parts(run, folder):
    watched = run(folder, canary=0.5)
    plain = run(folder, out=folder.parent / "plain")
    assert watched.store.part_path(0).read_bytes() == plain.store.part_path(0).read_bytes()


def test_events_and_stats(run, folder):
    report = run(folder, shard_size=2)
    events = [json.loads(line) for line in report.store.events_path.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names == ["run_started", *["shard_committed"] * 3, "run_finished"]
    assert {event["shard"] for event in events if event["event"] == "shard_committed"} == {0, 1, 2}
    stats = json.loads((report.store.root / "stats.json").read_text())
    nothing = {"counts": {}, "names": {}}
    assert stats["store"] == {"num_images": 6, "num_ok": 6, "failed": {}, "left_out": nothing}
    last = stats["last_run"]
    assert set(last["images_per_second"]) == {"end_to_end", "decode", "encode"}
    assert last["bound_by"] in ("decode", "transfer", "encode", "write")
    assert last["sentence"].startswith(f"{last['bound_by']}-bound: ")
    assert min(last["seconds"].values()) >= 0


def test_prometheus_metrics(run, folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    texts = []

    def look(tick):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            texts.append(answer.read().decode())

    run(folder, look, metrics_port=port)
    assert "clipsieve_images_done 6.0" in texts[-1]
    assert 'clipsieve_events_total{event="run_started"} 1.0' in texts[-1]
    with socket.socket() as server:  # another program's port
        server.bind(("0.0.0.0", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--metrics-port {port}: .*; choose a free port"):
            run(folder, metrics_port=port)
