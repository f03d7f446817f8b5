"""One gallery with the images of two conditions."""

import numpy as np
import pytest

from pipeline.errors import ConfigError
from query.evaluation.raw.data import read_data
from query.evaluation.raw.mixed import head_of_mixed, read_mixed
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.running.kept.blocks import Blocks, read_array
from query.evaluation.running.mixed import halves
from tests.kit import adapters
from tests.kit.few_towers import FewTowers


@pytest.fixture
def sweep(tmp_path, photos, tiny_model):
    """A sweep that has not run yet."""
    return FewTowers(tmp_path, photos, tiny_model)


def mixed_of(sweep, record, first, second):
    one, two = (next(found for found in record.conditions if found.name == name) for name in (first, second))
    return read_mixed(sweep.out, head_of_mixed(record, one, two, record.data[0]))


def test_half_of_the_images_are_of_each(sweep):
    for number in (1, 2, 13, 1000):
        assert halves(number).sum() == number // 2
    np.testing.assert_array_equal(halves(50), halves(50))


def test_every_image_has_the_vector_of_its_half(sweep):
    sweep.write_grid(policies="[lossless, balanced]", more="mixed: [[none, balanced], [none, lossless]]")
    record = sweep.run()
    found = mixed_of(sweep, record, "none", "balanced")
    data = read_data(sweep.out.data("photos"))
    first, second = (
        Blocks(sweep.out.vectors(sweep.key_of(name), "photos"), len(data.keys)).read() for name in ("none", "balanced")
    )
    texts = read_array(next((sweep.out.root / "vectors" / "photos").glob("texts-*.npy")), len(data.titles))
    for is_first, answers in ((found.is_first_N, found.drawn), (~found.is_first_N, found.swapped)):
        scores = texts @ np.where(is_first[:, None], first, second).T
        ids = answers.ids_QK[:, : len(data.keys)]
        assert (np.sort(ids, axis=1) == np.arange(len(data.keys))).all()
        expected = np.take_along_axis(scores, ids, axis=1)
        np.testing.assert_allclose(answers.scores_QK[:, : len(data.keys)], expected, atol=1e-6)
    # the tower keeps all tokens, so both halves are of the unpruned one, up to rounding
    same = mixed_of(sweep, record, "none", "lossless")
    plain = read_ranks(sweep.out.ranks(sweep.key_of("none"), "photos"))["image_retrieval"]
    for answers in (same.drawn, same.swapped):
        np.testing.assert_allclose(answers.scores_QK, plain.scores_QK, atol=1e-5)
        np.testing.assert_allclose(answers.best_Q, plain.best_Q, atol=1e-5)
    before = sweep.times("raw/mixed")
    assert len(before) == 4
    sweep.run()
    assert sweep.times("raw/mixed") == before


def test_conditions_that_read_texts_differently_are_refused(sweep, tiny_model):
    folder = adapters.write(sweep.root / "adapter", tiny_model, variant="shared")
    sweep.write_grid(policies="[balanced]", adapters=f"none, {folder}", more="mixed: [[none, balanced+adapter]]")
    with pytest.raises(ConfigError, match=r"grid.yaml, line \d+: mixed.0.*read texts differently"):
        sweep.run()
    assert not [name for name in sweep.contents("vectors") if name.endswith(".npy")]
