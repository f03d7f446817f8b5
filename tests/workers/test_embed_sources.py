"""`pipeline.embedding.embed` on tars, Parquet files and lists, and on sources that grow and change."""

import base64
import csv
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.errors import ConfigError, InputError, StoreError
from pipeline.pixels.decode import open_rgb
from pipeline.settings.store import VerifySettings
from pipeline.store.commit_markers import committed_markers
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.store.tombstones import read_tombstones
from pipeline.verify import verify
from query.searcher import Searcher
from tests.kit.reports import jpeg, rows
from tests.kit.signed_links import Site, assert_nothing_secret_in, serving_signed, signed
from tests.kit.sources import tar_of

pytestmark = pytest.mark.usefixtures("ray_session")


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


def test_what_a_tar_holds_besides_its_images_is_recorded(run, tars):
    with tarfile.open(tars / "00001.tar", "a") as archive:
        for name, target in (("009.jpg", "005.jpg"), ("010.jpg", "../outside.jpg")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        archive.addfile(tarfile.TarInfo("009.pose.json"))
    report = run(tars / "*.tar", columns="license")
    assert report.num_ok == 9
    assert [marker.columns_seen for marker in list(report.view.committed.values())] == [["license"], ["license"]]
    assert report.left_out.counts == {"link_out_of_tar": 1, "text_without_image": 1, "image_without_text": 1}
    first, *_, last = rows(report)[5:]
    assert (last["key"], last["sha256"]) == ("00001.tar/009.jpg", first["sha256"])


def test_a_mistyped_column_of_tars_is_a_warning_and_then_an_error(run, tars):
    warnings = []
    report = run(tars / "*.tar", on_warning=warnings.append, columns="license,lisence")
    with pytest.raises(InputError, match=r"^--columns lisence: no image of .* has such a field in its .json"):
        report.refuse_bad_source()
    assert ["--columns lisence:" in text for text in warnings] == [True]
    with pytest.raises(InputError, match=r"--columns lisence"):  # also if there is nothing left to do
        run(tars / "*.tar", columns="license,lisence").refuse_bad_source()


def test_search_finds_rows_of_tars(run, tars):
    report = run(tars / "*.tar")
    build_index(IndexSettings(store=report.store.root))
    hits = Searcher.open(report.store.root).search("a picture", 8)
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


def test_parquet_with_text_of_every_kind(run, tmp_path, make_image):
    def write(name, numbers):
        columns = {
            "image": [base64.b64encode(jpeg(make_image, n)).decode() for n in numbers],
            "name": [f"bild å {n}".encode() for n in numbers],
            "text": [[None, " ", b"a dog"] for _ in numbers],
            "tags": [{"of": ["x", None], "n": n} for n in numbers],
            "raw": [b"\xff" for _ in numbers],
        }
        (tmp_path / "sets").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / "sets" / name)

    settings = {"key_column": "name", "columns": "tags,raw"}
    write("a.parquet", range(3))
    report = run(tmp_path / "sets/*.parquet", **settings)
    assert [row["key"] for row in rows(report)] == [f"bild å {n}" for n in range(3)]
    first = rows(report)[0]
    found = {name: first[name] for name in ("status", "caption", "tags", "raw")}
    assert found == {"status": "ok", "caption": "a dog", "tags": '{"n": 0, "of": ["x", null]}', "raw": b"\xff"}
    assert open_rgb(first["uri"]).size == (first["width"], first["height"])
    write("b.parquet", [3, 2])
    with pytest.raises(InputError, match=r"row 1 of .*/b.parquet has the key 'bild å 2', which row 2 of the store has"):
        run(tmp_path / "sets/*.parquet", **settings)
    write("b.parquet", [3, 4])
    assert run(tmp_path / "sets/*.parquet", **settings).num_images == 5
    assert verify(VerifySettings(store=report.store.root)).findings == []


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
    hits = Searcher.open(report.store.root).search("x", 10)
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
