"""An adapter through the whole pipeline on a real Ray: embed, index, search, evaluate."""

import json

import numpy as np
import pytest

from pipeline.embedding import embed
from pipeline.errors import FingerprintMismatch
from pipeline.model.adapter.files import read_adapter
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from pipeline.settings.embed import EmbedSettings
from pipeline.store.layout import Store
from pipeline.store.parts import embeddings_of, read_part
from query.cli.main import main
from query.searcher import Searcher
from tests.kit.adapters import write

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "both": write(folder / "both", tiny_model),
        "images": write(folder / "images", tiny_model, variant="image-only"),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory, photos, tiny_model, adapters):
    folder = tmp_path_factory.mktemp("adapted")
    argv = ["embed", str(photos), "--out", str(folder / "store"), "--model", tiny_model, "--precision", "fp32"]
    assert main([*argv, "--policy", "fast", "--adapter", adapters["both"]]) == 0
    assert main(["index", str(folder / "store")]) == 0
    return folder / "store"


def test_a_store_contains_the_embeddings_of_the_merged_model(store, tiny_model, adapters):
    record = Store(store).read_record()
    spec = record.encoder
    assert spec.adapter == spec.text_adapter == read_adapter(adapters["both"]).sha256
    merged = load_model(ModelSource(model=tiny_model, adapter=adapters["both"]), "fp32", "cpu")
    [text] = Encoder(merged, None).encode_texts(["a cat"])
    parts = [Store(store).part_path(shard.ordinal) for shard in record.shards]
    vectors = [embeddings_of(read_part(part, ["id", "status", "embedding"]))[1] for part in parts]
    hits = Searcher.open(store).search("a cat", 12)
    scores = np.sort(np.concatenate(vectors).astype(np.float32) @ text)[::-1]
    assert len(hits) == 12
    assert np.allclose([hit.score for hit in hits], scores, atol=1e-3)


def test_a_store_refuses_another_adapter(store, photos, tiny_model, adapters):
    for adapter in (None, adapters["images"]):
        parts = {"model": tiny_model, "policy": "fast", "precision": "fp32", "adapter": adapter}
        with pytest.raises(FingerprintMismatch):
            embed(EmbedSettings(source=photos, out=store, **parts))


def test_evaluate_shows_all_conditions_and_the_recovered_share(photos, tiny_model, adapters, tmp_path):
    captions = tmp_path / "captions.tsv"
    captions.write_text("photo-01.png\ta cat\nphoto-02.jpg\ta dog\nmore/photo-03.png\ta red house\n")
    argv = ["evaluate", "--images", str(photos), "--captions", str(captions), "--model", tiny_model]
    argv += ["--policy", "none,fast", "--adapter", adapters["both"], "--control", adapters["images"]]
    argv += ["--precision", "fp32", "--bench-images", "8", "--json-file", str(tmp_path / "r.json")]
    assert main(argv) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    conditions = {condition["name"]: condition for condition in results["conditions"]}
    assert list(conditions) == ["none", "none+control", "none+adapter", "fast", "fast+adapter"]
    assert conditions["fast"]["gmacs"] == conditions["fast+adapter"]["gmacs"]
    assert conditions["none"]["cosine_to_unpruned"] == pytest.approx(1, abs=1e-3)
    assert conditions["none+adapter"]["cosine_to_unpruned"] < 0.999
    # texts of the bare model are measured too if the adapter changes the texts
    with_bare_texts = [name for name, condition in conditions.items() if "metrics_of_bare_texts" in condition]
    assert with_bare_texts == ["none+adapter", "fast+adapter"]
    [recovery] = results["recovery"]
    assert set(recovery) == {"policy", "of_none", "of_none+control"}


def test_evaluate_without_an_adapter_has_no_adapter_rows(photos, tiny_model, tmp_path):
    captions = tmp_path / "captions.tsv"
    captions.write_text("photo-01.png\ta cat\n")
    argv = ["evaluate", "--images", str(photos), "--captions", str(captions), "--model", tiny_model]
    argv += ["--policy", "fast", "--precision", "fp32", "--bench-images", "8", "--json-file", str(tmp_path / "r.json")]
    assert main(argv) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert [condition["name"] for condition in results["conditions"]] == ["none", "fast"]
    assert "recovery" not in results
