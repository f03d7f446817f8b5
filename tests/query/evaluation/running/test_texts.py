"""Vectors of queries: those of captions, and the mean of a class's prompts."""

import shutil

import numpy as np
import pytest

from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from query.evaluation.raw.data import read_data
from query.evaluation.running import texts


@pytest.fixture
def classes(sweep):
    """The same sweep, over two classes of photographs and two templates."""
    for number, key in enumerate(sweep.keys):
        folder = sweep.root / "classes" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(sweep.root / "photos" / key, folder)
    (sweep.root / "templates.txt").write_text("a photo of a {c}\nthe {c}, seen from afar\n")
    lines = sweep.grid.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if "captions:" in line)
    lines[place] = f'  - {{name: photos, classes: "{sweep.root}/classes", templates: "{sweep.root}/templates.txt"}}'
    sweep.grid.write_text("\n".join(lines).replace("ks:", "metric: acc1\nks:") + "\n")
    return sweep


def test_a_class_is_the_unit_mean_of_its_prompts(classes, tiny_model):
    record = classes.run().record
    titles = read_data(classes.out.data("photos")).titles
    assert titles == ["cat", "dog"]
    encoder = Encoder(load_model(ModelSource(model=tiny_model), "fp32", "cpu"), None)
    vectors = encoder.encode_texts([f"a photo of a {name}" for name in titles])
    vectors = vectors + encoder.encode_texts([f"the {name}, seen from afar" for name in titles])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = np.load(classes.out.texts(encoder.text_space, "photos"))
    assert found == pytest.approx(vectors, abs=1e-5)
    assert record.data[0].kind == "classes"


def test_texts_are_embedded_once_for_conditions_that_read_them_alike(sweep, monkeypatch):
    embedded = []
    text_encoder = texts.text_encoder

    class Counted:
        def __init__(self, spec):
            self._encoder = text_encoder(spec)
            self.text_space = self._encoder.text_space

        def encode_texts(self, found, batch_size):
            embedded.extend(found)
            return self._encoder.encode_texts(found, batch_size)

    monkeypatch.setattr(texts, "text_encoder", Counted)
    captions = {key: ["the same", f"photo {key}"] for key in sweep.keys}
    sweep.write_captions(captions)
    sweep.run()
    assert sorted(embedded) == sorted({text for each in captions.values() for text in each})
    sweep.run()
    assert len(embedded) == 13
