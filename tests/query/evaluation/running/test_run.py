"""What a sweep measures: vectors, ranks, cosines and failures, against the plain way to compute them."""

import json

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, InputError
from pipeline.measure.recall import first_hit_ranks
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ModelSource
from pipeline.pixels.decode import decode_batch
from pipeline.source.formats.captions import list_captioned
from query.evaluation.grid.expand import expand
from query.evaluation.grid.read import read_grid
from query.evaluation.raw.data import read_data
from query.evaluation.raw.head import RawHead, holds
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.images import read_cosines
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.raw.record import read_record
from query.evaluation.raw.timings import read_rounds
from query.evaluation.running.run import run
from query.evaluation.running.towers import Models, load_towers


def plain_vectors(sweep, model, policy):
    """Image and text vectors as `Encoder` gives them, by its own loading and decoding."""
    entries, captions = list_captioned(sweep.root / "photos", sweep.root / "captions.tsv")
    encoder = Encoder(load_model(ModelSource(model=model), "fp32", "cpu"), policy)
    pixels = decode_batch(entries, encoder.spec.preprocess).pixels
    texts = [text for entry in entries for text in captions[entry.key]]
    labels = np.array([place for place, entry in enumerate(entries) for _ in captions[entry.key]])
    return encoder.encode(pixels), encoder.encode_texts(texts), labels


def test_ranks_and_cosines_are_those_of_the_plain_encoder(sweep, tiny_model):
    record = sweep.run().record
    key, data = sweep.key_of("balanced"), record.data[0]
    images, texts, labels = plain_vectors(sweep, tiny_model, named_policy("balanced"))
    unpruned, _, _ = plain_vectors(sweep, tiny_model, None)
    head = head_of(record, record.condition(key), data, "ranks")
    ranks = read_ranks(sweep.out.ranks(key, "photos"), head)
    places = np.arange(len(images))
    for task, expected in (
        ("image_retrieval", first_hit_ranks(texts, labels, images, places)),
        ("text_retrieval", first_hit_ranks(images, places, texts, labels)),
    ):
        found = ranks[task].above_Q + ranks[task].tied_Q
        assert (found == expected).mean() > 0.9  # rounding may swap two of these alike vectors
        assert abs(found - expected).max() <= 1
    cosines = read_cosines(sweep.out.images(key, "photos"), head_of(record, record.condition(key), data, "images"))
    assert cosines == pytest.approx((images * unpruned).sum(axis=1), abs=1e-5)
    assert read_cosines(sweep.out.images(record.baseline.key, "photos")) == pytest.approx(1.0, abs=1e-5)


def test_the_record_and_the_files_belong_together(sweep):
    record = sweep.run().record
    assert record == read_record(sweep.out)
    assert record.baseline.name == "none"
    assert {found.role for found in record.conditions} == {"baseline", "condition", "rival"}
    assert len({found.fingerprint for found in record.conditions}) == len(record.conditions)
    (data,) = record.data
    assert data.counts["num_queries"] == 2 * data.counts["num_images"] == 24
    assert read_data(sweep.out.data("photos"), data.sha256).keys == sweep.keys
    for found in record.conditions:
        assert holds(sweep.out.ranks(found.key, "photos"), head_of(record, found, data, "ranks"))
    rounds = read_rounds(sweep.out.timings)
    assert all(sorted(timed.keys) == sorted(found.key for found in record.conditions) for timed in rounds)
    assert all(value > 0 for timed in rounds for value in timed.seconds)
    assert {number for timed in rounds for number in timed.num_items} == {4}
    assert any(path.name.startswith(sweep.key_of("balanced")) for path in sweep.out.pictures.iterdir())
    json.loads(sweep.out.record.read_bytes())["grid"]["rivals"]


def test_an_image_that_cannot_be_decoded_is_left_out_of_all_conditions_and_named(sweep):
    (sweep.root / "photos" / sweep.keys[2]).write_bytes(b"not an image")
    ran = sweep.run()
    (data,) = ran.record.data
    assert data.counts["num_failed"] == 1
    assert data.counts["num_images"] == 11
    assert data.counts["num_queries"] == 22
    (warning,) = ran.record.warnings
    assert warning.startswith(
        f"data set 'photos': 1 of 12 images cannot be decoded and are left out of all conditions: '{sweep.keys[2]}' ("
    )
    for found in ran.record.conditions:
        ranks = read_ranks(sweep.out.ranks(found.key, "photos"))
        assert [len(ranks[task].above_Q) for task in ("image_retrieval", "text_retrieval")] == [22, 11]
    assert sweep.run().notes[-1].startswith("nothing was measured")


def test_only_what_is_decomposed_meets_the_distractors(sweep, make_image):
    folder = sweep.root / "more"
    folder.mkdir()
    for number in range(3):
        make_image(40, 40, 50 + number).save(folder / f"{number}.png")
    more = "decompose: {conditions: [balanced]}"
    sweep.write_grid(data=f', distractors: ["{folder}"]', more=more)
    record = sweep.run().record
    assert [data.name for data in record.data] == ["photos", "photos+distractors"]
    assert record.data[1].counts["num_distractors"] == 3
    names = {
        path.name.removesuffix(".ranks.parquet") for path in (sweep.out.root / "raw").rglob("*distractors/*.ranks.*")
    }
    assert names == {record.baseline.key, sweep.key_of("balanced")}
    plain, whole = (read_ranks(sweep.out.ranks(record.baseline.key, data.name)) for data in record.data)
    strict = [found["image_retrieval"].above_Q + found["image_retrieval"].tied_Q for found in (plain, whole)]
    assert (strict[0] <= strict[1]).all()
    assert (strict[0] < strict[1]).any()
    assert whole["image_retrieval"].ids_QK.max() == 14


def test_distractors_without_a_decomposition_are_said_to_be_unused(sweep, make_image):
    folder = sweep.root / "more"
    folder.mkdir()
    make_image(40, 40, 50).save(folder / "0.png")
    sweep.write_grid(data=f', distractors: ["{folder}"]')
    record = sweep.run().record
    assert record.warnings == ["data set 'photos': its distractors are not used, because nothing is decomposed"]
    assert len(record.data) == 1


def test_two_conditions_of_one_encoder_are_refused_with_their_lines(sweep):
    more = "  - {name: theirs, policies: [lossless], image_sizes: [32]}"  # the tower's own size
    sweep.write_grid(policies="[lossless]", more=more)
    with pytest.raises(ConfigError, match=r"grid\.yaml, line \d+: .*'lossless, 32 px'.*'lossless'.*line \d+"):
        sweep.run()
    assert not sweep.out.record.exists()


def test_a_k_beyond_the_gallery_is_refused_with_its_line(sweep):
    sweep.grid.write_text(sweep.grid.read_text().replace("ks: [1, 5]", "ks: [1, 5, 13]"))
    with pytest.raises(
        ConfigError, match=r"grid\.yaml, line 5: ks\.2 = 13: the gallery of 'photos' has only 12 images"
    ):
        sweep.run()


def test_a_captions_file_of_unknown_images_names_the_line_of_the_data_set(sweep):
    sweep.write_captions({"nowhere.jpg": ["nothing"]})
    with pytest.raises(InputError, match=r"grid\.yaml, line \d+: data set 'photos': .*nowhere\.jpg"):
        sweep.run()


def test_a_metric_of_classes_needs_classes(sweep):
    sweep.write_grid(more="metric: acc1")
    with pytest.raises(ConfigError, match=r"grid\.yaml, line 11: metric = 'acc1': no data set has classes"):
        sweep.run()
    assert not list(sweep.out.root.rglob("*.npy"))


def test_a_model_that_cannot_be_loaded_names_the_line(sweep):
    sweep.grid.write_text(sweep.grid.read_text().replace(f'"{sweep.model}"', "ViT-B-99"))
    with pytest.raises((ConfigError, InputError), match=r"grid\.yaml, line 1: .*ViT-B-99"):
        sweep.run()


def test_an_earlier_sweep_of_another_split_is_refused_before_anything_is_measured(sweep):
    def refuse(record):
        assert record.data[0].name == "photos"
        raise ConfigError("another split")

    grid = read_grid(sweep.grid)
    with pytest.raises(ConfigError, match="another split"):
        run(grid, expand(grid), sweep.out, accept=refuse)
    assert not list(sweep.out.root.rglob("*.npy"))
    assert not sweep.out.record.exists()


def test_equal_weights_are_in_memory_once(sweep):
    sweep.write_grid(more="  - {name: small, image_sizes: [16]}")
    grid = read_grid(sweep.grid)
    towers, _ = load_towers(expand(grid), grid, Models(torch.device("cpu"), 4), lambda name, tick: None)
    clips = {tower.encoder.spec.preprocess.height: tower.loaded.clip for tower in towers}
    assert len(clips) > 1
    assert len({clip.transformer.resblocks[0].mlp.c_fc.weight.data_ptr() for clip in clips.values()}) == 1
    assert len({clip.visual.positional_embedding.data_ptr() for clip in clips.values()}) == len(clips)


def test_a_file_of_another_split_or_encoder_does_not_count(sweep):
    record = sweep.run().record
    path = sweep.out.ranks(record.baseline.key, "photos")
    head = head_of(record, record.baseline, record.data[0], "ranks")
    assert holds(path, head)
    for change in ({"data_sha256": "0"}, {"fingerprint": "0"}, {"environment_key": "0"}, {"settings": {}}):
        assert not holds(path, RawHead(**head.model_dump() | change))
