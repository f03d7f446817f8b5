"""Plans for a source that grew or changed, and kills while they are written."""

import os

import pytest

from pipeline.errors import InputError, StoreError
from pipeline.planning.extend import find_changes, write_changes
from pipeline.planning.shards import listing_hash
from pipeline.source.entry import Source
from pipeline.source.listing import Listing, list_source
from pipeline.store.tombstones import DELETED, add_tombstones, read_tombstones
from pipeline.store.view import StoreView
from tests.kit.jobs import KILLS, Job, Killed, contents, hashed, kill_before_the_plan_counts, spoil
from tests.kit.sources import folder_of


@pytest.fixture
def job(tmp_path, spec):
    return Job(tmp_path / "store", spec)


@pytest.fixture
def folder(tmp_path):
    """Seven images, `0.jpg` to `6.jpg`."""
    return folder_of(tmp_path / "photos", [f"{number}.jpg" for number in range(7)])


# --- individual images


def test_the_first_plan(job, folder):
    record = job.plan(folder)
    [plan] = record.plans
    assert (plan.number, plan.source) == (0, Source(location=str(folder), format="folder"))
    assert [(shard.ordinal, shard.first_id, shard.start, shard.num_images) for shard in plan.shards] == [
        (0, 0, 0, 3), (1, 3, 3, 3), (2, 6, 6, 1),
    ]  # fmt: skip
    listing = list(list_source(Source(location=str(folder), format="folder")))
    assert list(job.store.entries_of(plan)) == listing
    assert [shard.shard_id for shard in plan.shards] == [listing_hash(listing[n : n + 3]) for n in (0, 3, 6)]
    assert list(job.store.entries_of(plan, plan.shards[1])) == listing[3:6]
    job.commit()
    assert job.living == contents(folder)


def test_nothing_new_adds_no_plan(job, folder):
    first = job.plan(folder)
    files = sorted(job.store.plan_dir.iterdir())
    assert job.plan(folder) == first  # not committed yet
    job.commit(1)
    assert job.plan(folder) == first
    job.commit()
    for on_change in ("stop", "keep", "embed"):
        assert job.plan(folder, on_change) == first
        assert job.plan(folder, on_change, check=True) == first
    assert sorted(job.store.plan_dir.iterdir()) == files


def test_a_grown_folder_adds_only_its_new_images(job, folder):
    before = job.run(folder)
    first = job.record
    for name in ("00.jpg", "35.jpg", "a/x.jpg", "z.jpg"):  # before, between and after the others
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    record = job.plan(folder)
    assert record.plans[0] == first.plans[0]
    second = record.plans[1]
    assert [entry.key for entry in job.store.entries_of(second)] == ["00.jpg", "35.jpg", "a/x.jpg", "z.jpg"]
    assert [(shard.ordinal, shard.first_id, shard.num_images) for shard in second.shards] == [(3, 7, 3), (4, 10, 1)]
    assert record.plan_of(second.shards[1]) == second
    job.commit()
    assert job.living == contents(folder)
    assert before.items() <= job.living.items()
    (folder / "y.jpg").write_text("third")
    assert job.plan(folder).plans[2].shards[0].first_id == 11
    job.commit()
    assert job.living == contents(folder)


def change_bytes(folder):
    (folder / "2.jpg").write_text("another image 2")


def change_time(folder):
    os.utime(folder / "2.jpg", ns=(1, 1))


def change_caption(folder):
    (folder / "captions.tsv").write_text("2.jpg\tanother caption\n")


@pytest.mark.parametrize("change", [change_bytes, change_time, change_caption])
@pytest.mark.parametrize("is_committed", [True, False])
def test_a_changed_image(job, folder, change, is_committed):
    (folder / "captions.tsv").write_text("2.jpg\ta caption\n")
    captions = folder / "captions.tsv"
    first = job.plan(folder, captions=captions)
    if is_committed:
        job.commit()
    change(folder)
    with pytest.raises(
        StoreError, match=r"1 images or files of the store .* changed .*, first '2.jpg'; .*--on-change embed"
    ):
        job.plan(folder, captions=captions)
    assert job.plan(folder, "keep", captions=captions) == first == job.record
    assert read_tombstones(job.store).tolist() == []
    second = job.plan(folder, "embed", captions=captions)
    assert [entry.key for entry in job.store.entries_of(second.plans[1])] == ["2.jpg"]
    assert read_tombstones(job.store).tolist() == [2]
    assert job.plan(folder, "embed", captions=captions) == second == job.plan(folder, captions=captions)
    job.commit()
    assert job.living == contents(folder)
    assert job.plan(folder, captions=captions) == second
    change_bytes(folder)
    os.utime(folder / "2.jpg", ns=(5, 5))
    job.run(folder, "embed", captions=captions)  # and again
    assert read_tombstones(job.store).tolist() == [2, 7]
    assert job.living == contents(folder)


def test_changed_images_are_counted_and_the_first_is_named(job, folder):
    job.run(folder)
    for number in (5, 3, 4):
        (folder / f"{number}.jpg").write_text("x")
    with pytest.raises(StoreError, match=r"3 images or files .* first '3.jpg'"):
        job.plan(folder)


def test_images_that_disappeared(job, folder):
    job.plan(folder)
    job.commit(1)
    (folder / "1.jpg").unlink()  # its row stays
    first = job.record
    assert job.plan(folder) == first
    for number in (4, 6):
        (folder / f"{number}.jpg").unlink()
    with pytest.raises(StoreError, match=r"2 images or files .* disappeared before they were embedded, first '4.jpg';"):
        job.plan(folder)
    assert job.plan(folder, "keep") == first
    assert job.plan(folder, "embed") == first
    job.commit()
    assert job.plan(folder) == first  # they now have rows with the reason
    assert job.living["4.jpg"] is None


def test_an_unreadable_image_that_becomes_readable(job, folder):
    (folder / "dangling.jpg").symlink_to("later")
    first = job.run(folder)
    assert first["dangling.jpg"] is None
    assert len(job.plan(folder, check=True).plans) == 1
    (folder / "later").write_text("here it is")
    assert job.run(folder, "embed")["dangling.jpg"] == hashed(b"here it is")


@pytest.mark.parametrize("on_change", ["stop", "keep", "embed"])
def test_deleted_images_stay_away(job, folder, on_change):
    job.run(folder)
    add_tombstones(job.store, [2, 5], DELETED)
    first = job.record
    assert job.plan(folder, on_change) == first
    (folder / "2.jpg").write_text("another image 2")
    spoil(folder / "5.jpg")
    for _ in range(2):
        assert job.plan(folder, on_change, check=True) == first
    assert sorted(job.living) == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "6.jpg"]


def test_an_image_deleted_after_it_was_replaced_stays_away(job, folder):
    job.run(folder)
    (folder / "2.jpg").write_text("another image 2")
    job.run(folder, "embed")
    add_tombstones(job.store, [7], DELETED)
    last = job.record
    (folder / "2.jpg").write_text("a third image 2")
    assert job.plan(folder, "embed") == last
    assert "2.jpg" not in job.living


# --- several sources


def test_a_second_source_with_other_keys(job, folder, tmp_path):
    job.run(folder)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/x.jpg").write_text("x")
    (tmp_path / "list.csv").write_text(f"path,key\n{folder}/3.jpg,three\nmore/y.jpg,why\n")
    job.run(tmp_path / "more")
    record = job.plan(tmp_path / "list.csv", key_column="key")
    assert [plan.source.format for plan in record.plans] == ["folder", "folder", "list"]
    job.commit()
    assert job.living == {**contents(folder), "x.jpg": hashed(b"x"), "three": hashed(b"image 3"), "why": None}
    for source, settings in ((folder, {}), (tmp_path / "more", {}), (tmp_path / "list.csv", {"key_column": "key"})):
        assert job.plan(source, **settings) == record  # images of other sources are not missing


def test_an_unfinished_source_is_not_missing_from_another_one(job, folder, tmp_path):
    job.plan(folder)
    (tmp_path / "list.csv").write_text("path\nx.jpg\n")
    assert len(job.plan(tmp_path / "list.csv").plans) == 2
    job.commit()
    assert job.living == {**contents(folder), "x.jpg": None}


def test_a_key_from_another_location_needs_a_prefix(job, folder, tmp_path):
    job.run(folder)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/3.jpg").write_text("another 3")
    with pytest.raises(InputError, match=r"the key '3.jpg' is already in the store, for .*/3.jpg; .* --key-prefix"):
        job.plan(tmp_path / "more", "embed")
    assert len(job.record.plans) == 1
    job.run(tmp_path / "more", key_prefix="more/")
    assert job.living == {**contents(folder), "more/3.jpg": hashed(b"another 3")}
    assert len(job.plan(tmp_path / "more", key_prefix="more/").plans) == 2
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"'0.jpg' is already in the store.* or move the collection back"):
        job.plan(tmp_path / "moved")


def test_repeated_keys_leave_no_plan(job, tmp_path):
    (tmp_path / "list.csv").write_text("path\na.jpg\nb.jpg\na.jpg\n")
    with pytest.raises(InputError, match=r"has the key 'a.jpg' twice"):
        job.plan(tmp_path / "list.csv")
    assert list(job.store.plan_dir.iterdir()) == []
    (tmp_path / "list.csv").write_text("path\na.jpg\nb.jpg\n")
    assert len(job.plan(tmp_path / "list.csv").plans) == 1


# --- contents


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_change_that_keeps_size_and_time(job, folder, is_committed):
    first = job.plan(folder)
    if is_committed:
        job.commit()
    spoil(folder / "2.jpg")
    assert job.plan(folder) == first
    if not is_committed:  # no embedded image can differ
        assert job.plan(folder, check=True) == first
        return
    with pytest.raises(StoreError, match=r"1 images or files .* first '2.jpg'"):
        job.plan(folder, check=True)
    assert job.plan(folder, "keep", check=True) == first
    job.run(folder, "embed", check=True)
    assert job.living == contents(folder)
    last = job.record
    assert job.plan(folder, check=True) == last  # the old row has a tombstone and is not compared again


def test_contents_after_several_plans_with_interleaved_keys(job, folder):
    job.run(folder)
    for number in range(20, 40, 2):
        (folder / f"{number}.jpg").write_text(f"image {number}")
    job.run(folder)
    last = job.record
    assert job.plan(folder, check=True) == last
    spoil(folder / "24.jpg")
    spoil(folder / "3.jpg")
    with pytest.raises(StoreError, match=r"2 images or files .* first '24.jpg'"):
        job.plan(folder, check=True)


def test_an_image_that_crashes_its_decoder_does_not_count_as_changed(job, folder):
    job.plan(folder)
    job.commit(failing={"2.jpg": "crashed", "3.jpg": "timeout"})
    last = job.record
    assert job.plan(folder, check=True) == last


# --- kills


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_while_changes_are_planned(job, folder, kill, is_committed, monkeypatch):
    job.plan(folder)
    job.commit(None if is_committed else 1)
    for number in (1, 4):
        (folder / f"{number}.jpg").write_text(f"another image {number}")
    (folder / "9.jpg").write_text("new")
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            job.plan(folder, "embed")
    job.commit()  # whatever has been planned so far
    assert (
        job.living.items()
        >= {name: digest for name, digest in contents(folder).items() if name in "0.jpg2.jpg"}.items()
    )
    job.run(folder, "embed")
    assert job.living == contents(folder)
    last = job.record
    assert job.plan(folder) == last
    assert len(last.plans) == 2


def test_a_kill_before_the_first_plan_counts(job, folder, monkeypatch):
    with monkeypatch.context() as patch:
        kill_before_the_plan_counts(patch)
        with pytest.raises(Killed):
            job.plan(folder)
    assert job.record.plans == ()
    (folder / "9.jpg").write_text("new")
    job.run(folder)
    assert job.living == contents(folder)


# --- images that would be there twice


@pytest.mark.parametrize("inner_first", [True, False])
def test_nested_folders_are_refused(job, folder, inner_first):
    (folder / "inner").mkdir()
    (folder / "inner" / "x.jpg").write_text("x")
    sources = [folder / "inner", folder] if inner_first else [folder, folder / "inner"]
    before = job.plan(sources[0])
    with pytest.raises(InputError, match=r"shares images with .*, which is in the store under other keys"):
        job.plan(sources[1])
    with pytest.raises(InputError, match="shares images with"):
        job.plan(sources[0], key_prefix="p/")
    assert job.record == before


def test_a_folder_with_a_longer_name_is_another_folder(job, folder):
    other = folder.with_name(f"{folder.name}-2")
    other.mkdir()
    (other / "x.jpg").write_text("x")
    job.run(folder)
    assert "x.jpg" in job.run(other)


def test_a_new_source_is_walked_twice(job, folder, monkeypatch):
    # to find repeated keys before anything starts, and to plan
    walks, walk = [], Listing.__iter__
    monkeypatch.setattr(Listing, "__iter__", lambda self: walks.append(self) or walk(self))
    job.plan(folder)
    assert len(walks) == 2


def test_new_shards_may_be_larger_than_old_ones(job, folder):
    job.run(folder)
    for number in range(10):
        (folder / f"new-{number}.jpg").write_text(f"new {number}")
    listing = list_source(Source(location=str(folder), format="folder"))
    view = StoreView.now(job.store, job.record)
    record = write_changes(view, listing, find_changes(view, listing), capacity=8).record
    assert [shard.num_images for shard in record.plans[1].shards] == [8, 2]
    job.commit()
    assert job.living == contents(folder)


def test_a_missing_tombstone_file_is_an_error(job, folder):
    job.run(folder)
    add_tombstones(job.store, [1], DELETED)
    (job.store.root / "tombstones.parquet").unlink()
    with pytest.raises(StoreError, match=r"tombstones.parquet is missing; restore it from a backup"):
        job.plan(folder)
