"""What is measured is kept: nothing is measured twice, and what changed is measured again."""

import os
from collections import Counter

import pytest

from pipeline.errors import StoreError
from pipeline.model import load
from pipeline.model.precision import Candidate, Measurement
from query.evaluation.raw.timings import read_rounds
from query.evaluation.running import environment, prepare, vectors
from query.evaluation.running.kept import blocks
from tests.kit import adapters
from tests.kit.small_sweep import run_until_killed

RAW = ("raw", "vectors", "pictures")


def names_that_changed(before, after):
    return {name for name, value in after.items() if before.get(name) != value}


def test_a_second_run_measures_nothing(sweep):
    first = sweep.run()
    before = sweep.times(*RAW)
    second = sweep.run()
    assert sweep.times(*RAW) == before
    assert second.record == first.record
    assert second.notes[-1].startswith("nothing was measured; kept from earlier runs: ")
    assert "measured, 0 kept" in first.notes[-1]


def test_a_run_killed_while_it_embeds_goes_on_to_the_same_files(sweep, tmp_path, photos, tiny_model, monkeypatch):
    run_until_killed(sweep, "embed", 60)
    monkeypatch.setattr(blocks, "BLOCK", 4)
    before = sweep.times("vectors")
    num_blocks = sum(name.endswith(".npy") for name in before)
    assert 0 < num_blocks < 3 * 10
    assert not sweep.contents("raw")
    resumed = sweep.run()
    kept = {name: time for name, time in sweep.times("vectors").items() if name.endswith(".npy") and name in before}
    assert len(kept) == num_blocks
    assert all(before[name] == time for name, time in kept.items())
    assert f"{4 * num_blocks} kept" in resumed.notes[-1]
    (tmp_path / "other").mkdir()
    whole = type(sweep)(tmp_path / "other", photos, tiny_model)
    whole.run()
    is_timed = "raw/timings/"
    same = {name: data for name, data in whole.contents("raw", "vectors").items() if not name.startswith(is_timed)}
    found = {name: data for name, data in sweep.contents("raw", "vectors").items() if not name.startswith(is_timed)}
    own = "vectors/photos/images.parquet"  # it knows where the photographs are
    assert same.pop(own) != found.pop(own)
    assert found == same


def test_a_run_that_is_killed_within_a_round_loses_only_that_round(sweep, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 4)
    sweep.write_grid(rounds=3)
    run_until_killed(sweep, "rounds", 1)
    before = sweep.times("raw", "vectors")
    rounds = read_rounds(sweep.out.timings)
    assert [timed.number for timed in rounds] == [0]
    num_towers = len(rounds[0].keys)
    run_until_killed(sweep, "within a round", num_towers + num_towers // 2)  # after another warm-up
    assert sweep.times("raw", "vectors") == before
    sweep.run()
    after = sweep.times("raw", "vectors")
    assert {name: time for name, time in after.items() if name in before} == before
    rounds = read_rounds(sweep.out.timings)
    assert [(timed.block, timed.number) for timed in rounds] == [(0, 0), (0, 1), (0, 2)]
    assert rounds[0].keys == rounds[1].keys[::-1] == rounds[2].keys


def test_a_grid_that_grows_measures_only_what_is_new(sweep):
    sweep.write_grid(policies="[lossless]")
    sweep.run()
    before = sweep.times(*RAW)
    sweep.write_grid(policies="[lossless, fast]")
    sweep.run()
    new, baseline = sweep.key_of("fast"), sweep.key_of("none")
    changed = names_that_changed(before, sweep.times("raw", "vectors"))
    timed = {name for name in changed if name.startswith("raw/timings/tower-")}
    assert timed == {"raw/timings/tower-001-0000.parquet", "raw/timings/tower-001-0001.parquet"}
    assert all(new in name for name in changed - timed - {"raw/timings/made_of.json"})
    late = [timed for timed in read_rounds(sweep.out.timings) if timed.block == 1]
    assert [set(timed.keys) for timed in late] == [{baseline, new}] * 2


def test_a_grid_that_shrinks_leaves_files_and_names_only_what_it_asks_for(sweep):
    whole = sweep.run()
    key, before = sweep.key_of("balanced"), sweep.times("raw", "vectors")
    sweep.write_grid(policies="[lossless]")
    smaller = sweep.run()
    assert key not in {found.key for found in smaller.record.conditions}
    assert sweep.times("raw", "vectors") == before
    sweep.write_grid()
    assert sweep.run().record.conditions == whole.record.conditions
    assert sweep.times("raw", "vectors") == before


def test_a_changed_image_is_measured_again_by_every_condition(sweep, make_image):
    first = sweep.run()
    before = sweep.times("raw", "vectors")
    path = sweep.root / "photos" / sweep.keys[0]
    make_image(50, 50, 99).save(path)
    second = sweep.run()
    kept = {name for name in before} - names_that_changed(before, sweep.times("raw", "vectors"))
    assert all("texts-" in name or name.endswith("photos/made_of.json") for name in kept)
    assert second.record.data[0].images_sha256 != first.record.data[0].images_sha256
    assert second.record.data[0].sha256 == first.record.data[0].sha256


def test_a_file_that_was_only_touched_is_not_measured_again(sweep):
    sweep.run()
    before = sweep.times("raw", "pictures")
    os.utime(sweep.root / "photos" / sweep.keys[0], ns=(1, 10**18))
    assert sweep.run().notes[-1].startswith("nothing was measured")
    assert sweep.times("raw", "pictures") == before


def test_a_changed_caption_is_ranked_again_with_the_same_image_vectors(sweep):
    sweep.run()
    before = sweep.times("raw", "vectors")
    captions = {key: [f"photo {key}", f"a picture, {key}"] for key in sweep.keys}
    sweep.write_captions(captions | {sweep.keys[3]: ["something else", "and more"]})
    sweep.run()
    changed = names_that_changed(before, sweep.times("raw", "vectors"))
    assert {name for name in before if name.startswith("raw/photos/")} <= changed
    assert all("texts-" in name or name == "vectors/photos/made_of.json" for name in changed if name[0] == "v")
    assert not any(name.startswith("raw/timings/") for name in changed)


def test_a_changed_adapter_is_measured_again_under_the_conditions_that_have_it(sweep, tiny_model):
    folder = sweep.root / "adapter"
    adapters.write(folder, tiny_model, variant="image-only")
    sweep.write_grid(policies="[balanced]", adapters=f"none, {folder}")
    sweep.run()
    key, before = sweep.key_of("balanced+adapter"), sweep.times("raw", "vectors")
    for path in folder.iterdir():
        path.unlink()
    adapters.write(folder, tiny_model, variant="shared")
    sweep.run()
    changed = names_that_changed(before, sweep.times("raw", "vectors"))
    assert {f"raw/photos/{key}.ranks.parquet", f"raw/photos/{key}.images.parquet"} <= changed
    assert all(key in name or "texts-" in name or name == "vectors/photos/made_of.json" for name in changed)


def test_another_environment_measures_everything_anew_and_says_why(sweep, monkeypatch):
    sweep.run()
    before = sweep.times(*RAW)
    found = environment.environment_of

    def older(*args):
        return found(*args) | {"torch": "1.0"}

    monkeypatch.setattr(prepare, "environment_of", older)
    ran = sweep.run()
    assert ran.notes[0].startswith("everything is measured anew, because the environment changed: torch ")
    assert ran.notes[0].endswith(" -> 1.0")
    kept = set(before) - names_that_changed(before, sweep.times(*RAW))
    assert {name for name in kept if not name.endswith((".png", "made_of.json"))} == {"vectors/photos/images.parquet"}


def test_again_measures_everything_anew(sweep):
    sweep.run()
    before = sweep.times(*RAW)
    ran = sweep.run(again=True)
    kept = set(before) - names_that_changed(before, sweep.times(*RAW))
    assert {name for name in kept if not name.endswith("made_of.json")} == {"vectors/photos/images.parquet"}
    assert ", 0 kept" in ran.notes[-1]
    assert "1 kept" not in ran.notes[-1]


def test_a_missing_block_is_made_again_alone_and_a_damaged_one_is_named(sweep, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 4)
    sweep.run()
    before = sweep.times("vectors")
    folder = sweep.out.vectors(sweep.key_of("balanced"), "photos")
    (folder / "00001.npy").unlink()
    sweep.run()
    name = (folder / "00001.npy").relative_to(sweep.out.root).as_posix()
    assert names_that_changed(before, sweep.times("vectors")) == {name}
    data = (folder / "00002.npy").read_bytes()
    (folder / "00002.npy").write_bytes(data[:-7])
    sweep.out.ranks(sweep.key_of("balanced"), "photos").unlink()
    with pytest.raises(StoreError, match=r"00002\.npy is damaged: .*; delete it and run the sweep again"):
        sweep.run()


def test_each_image_is_decoded_once_for_each_input_size(sweep, monkeypatch):
    decoded = Counter()
    decode = vectors.decode_batch

    def counted(entries, preprocess):
        decoded.update((entry.key, preprocess.height) for entry in entries)
        return decode(entries, preprocess)

    monkeypatch.setattr(vectors, "decode_batch", counted)
    monkeypatch.setattr("query.evaluation.running.run.time_towers", lambda *args: None)
    monkeypatch.setattr("query.evaluation.running.run.draw_kept_patches", lambda *args: None)
    record = sweep.run().record
    sizes = {condition.image_size for condition in record.conditions}
    assert len(sizes) > 1
    assert decoded == Counter({(key, size): 1 for key in sweep.keys for size in sizes})


def test_the_precision_is_chosen_once_for_all_conditions_and_all_runs(sweep, monkeypatch):
    measured = []

    def measure(*args):
        measured.append(args)
        chosen = Candidate(precision=("bf16", "fp32")[len(measured) - 1])
        return Measurement(chosen=chosen, speeds={"fp32": 1.0, "bf16": 1.1})

    monkeypatch.setattr(load, "measure", measure)
    sweep.grid.write_text(sweep.grid.read_text().replace("precision: fp32", "precision: auto"))
    first = sweep.run()
    assert {found.precision for found in first.record.conditions} == {"bf16"}
    assert sweep.run().notes[-1].startswith("nothing was measured")
    assert len(measured) == 1
    again = sweep.run(again=True)
    assert {found.precision for found in again.record.conditions} == {"fp32"}
