"""The text tower of a store: loaded whole once, then from the cache directory; always checked."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from pipeline.errors import ConfigError, FingerprintMismatch, InputError
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ClaimedSpec, ModelSource
from pipeline.model.text_tower import kept
from pipeline.model.text_tower.encoder import PlainTextEncoder
from query import text as module
from query.text import text_encoder
from tests.kit.adapters import write

TEXTS = ["a cat", "two dogs in deep snow, seen from far above", "word " * 90]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache directory."""
    monkeypatch.setenv("CLIPSIEVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text-towers"


@pytest.fixture
def model(tmp_path, tiny_model):
    """The folder of a model that a test may change."""
    return shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "model")


@pytest.fixture
def spec(model):
    return load_model(ModelSource(model=f"local-dir:{model}"), "fp32", "cpu").spec


@pytest.fixture
def whole_loads(monkeypatch):
    """Counts how often a whole model is loaded."""
    loads, load = [], module._loaded
    monkeypatch.setattr(module, "_loaded", lambda *args: loads.append(args) or load(*args))
    return loads


def weights_of(folder):
    return folder / "open_clip_model.safetensors"


def change(folder, prefix):
    """Change a weight and nothing else: the size and the time of the file are put back."""
    path, before = weights_of(folder), weights_of(folder).stat()
    weights = load_file(path)
    name = next(name for name in weights if name.startswith(prefix))
    weights[name] = weights[name] + 0.5
    save_file(weights, path)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def reference(spec):
    return Encoder(load_model(spec.source, "fp32", "cpu"), None).encode_texts(TEXTS)


def test_the_first_load_and_later_ones_give_the_vectors_of_the_model(spec, whole_loads):
    found = [text_encoder(spec) for _ in range(3)]
    assert len(whole_loads) == 1
    vectors = [encoder.encode_texts(TEXTS) for encoder in found]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(vectors[0], reference(spec), rtol=0, atol=1e-6)
    assert {encoder.text_space for encoder in found} == {spec.text_space}
    assert found[1].tokenize.count_cut(TEXTS, "query", "queries")[0] == 1


def test_a_kept_tower_needs_neither_the_image_tower_nor_torch(spec):
    text_encoder(spec)
    program = f"""
import json, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from pipeline.model.spec import EncoderSpec
from query.text import text_encoder
encoder = text_encoder(EncoderSpec.model_validate_json({spec.model_dump_json()!r}))
encoder.encode_texts(["a cat"])
print(json.dumps([opened, sorted(sys.modules)]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    opened, modules = json.loads(run.stdout)
    assert any(path.endswith(".npy") for path in opened)
    assert not [path for path in opened if path.endswith(".safetensors")]
    assert not {"torch", "open_clip", "torchvision", "timm", "transformers"} & set(modules)


def test_the_copy_has_no_image_weights(spec, cache, tiny_model):
    text_encoder(spec)
    [record], [copy] = cache.glob("*.json"), cache.glob("*.npy")
    names = json.loads(record.read_text())["tensors"]
    weights = load_file(weights_of(Path(tiny_model.removeprefix("local-dir:"))))
    own = {name: weight for name, weight in weights.items() if not name.startswith(("visual.", "logit_"))}
    assert set(names) == set(own)
    assert np.load(copy, mmap_mode="r").size == sum(weight.numel() for weight in own.values())


def test_changed_text_weights_are_refused(spec, model):
    text_encoder(spec)
    change(model, "transformer.")
    for _ in range(2):  # the second time, too
        with pytest.raises(FingerprintMismatch, match="its weights changed; restore them, or embed again"):
            text_encoder(spec)


def test_changed_image_weights_do_not_matter(spec, model, whole_loads):
    text_encoder(spec)
    change(model, "visual.")
    for _ in range(2):
        np.testing.assert_allclose(text_encoder(spec).encode_texts(TEXTS), reference(spec), rtol=0, atol=1e-6)
    assert len(whole_loads) == 2


def test_a_model_that_is_gone_cannot_be_loaded(spec, model):
    text_encoder(spec)
    shutil.rmtree(model)
    with pytest.raises(InputError, match="cannot load model local-dir:"):
        text_encoder(spec)


@pytest.mark.parametrize("what", ["touched", "added"])
def test_files_that_change_are_read_again(what, spec, model, whole_loads):
    text_encoder(spec)
    if what == "touched":
        os.utime(weights_of(model))
    else:
        (model / "notes.txt").write_text("x")
    for _ in range(2):
        text_encoder(spec)
    assert len(whole_loads) == 2


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of the weights": lambda record, copy: flip(copy),
    "weights cut short": lambda record, copy: os.truncate(copy, copy.stat().st_size // 2),
    "empty weights": lambda record, copy: os.truncate(copy, 0),
    "no weights": lambda record, copy: copy.unlink(),
    "other weights": lambda record, copy: np.save(copy, np.zeros(10, np.float32)),
    "objects": lambda record, copy: np.save(copy, np.array([{}], object)),
    "a record that is no JSON": lambda record, copy: record.write_text("{"),
    "a record that lacks a weight": lambda record, copy: record.write_text(
        record.read_text().replace('"text_projection"', '"other"')
    ),
    "a folder as weights": lambda record, copy: (copy.unlink(), copy.mkdir()),
    "other software": lambda record, copy: record.write_text(
        record.read_text().replace('"format": "1"', '"format": "0"')
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_copy_is_made_again(name, spec, cache, whole_loads):
    expected = text_encoder(spec).encode_texts(TEXTS)
    [record], [copy] = cache.glob("*.json"), cache.glob("*.npy")
    DAMAGE[name](record, copy)
    if copy.is_dir():
        assert np.array_equal(text_encoder(spec).encode_texts(TEXTS), expected)
        return
    for _ in range(2):
        assert np.array_equal(text_encoder(spec).encode_texts(TEXTS), expected)
    assert len(whole_loads) == 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_a_home_that_cannot_be_written_does_without(spec, tmp_path, whole_loads):
    (tmp_path / "cache").write_text("not a folder")
    for _ in range(2):
        np.testing.assert_allclose(text_encoder(spec).encode_texts(TEXTS), reference(spec), rtol=0, atol=1e-6)
    assert len(whole_loads) == 2


def test_a_full_disk_is_left_alone(spec, cache, monkeypatch):
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    text_encoder(spec)
    assert not list(cache.iterdir())


def test_old_towers_make_room(tiny_model, tmp_path, cache):
    for number in range(kept.MAX_KEPT + 2):
        folder = shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / f"model-{number}")
        text_encoder(load_model(ModelSource(model=f"local-dir:{folder}"), "fp32", "cpu").spec)
    names = {path.name for path in cache.iterdir()}
    assert len(names) == 2 * kept.MAX_KEPT
    assert {name.replace(".npy", ".json") for name in names} < names


def test_an_adapter_of_the_text_tower_is_in_the_copy(tiny_model, tmp_path, whole_loads):
    source = ModelSource(model=tiny_model, adapter=write(tmp_path / "adapter", tiny_model, variant="shared"))
    spec = load_model(source, "fp32", "cpu").spec
    bare = load_model(ModelSource(model=tiny_model), "fp32", "cpu").spec
    adapted, plain = ([text_encoder(one).encode_texts(TEXTS) for _ in range(2)] for one in (spec, bare))
    assert len(whole_loads) == 2
    np.testing.assert_allclose(adapted[1], reference(spec), rtol=0, atol=1e-6)
    np.testing.assert_allclose(plain[1], reference(bare), rtol=0, atol=1e-6)
    assert np.abs(adapted[1] - plain[1]).max() > 0.01
    write(tmp_path / "adapter", tiny_model, variant="independent")
    with pytest.raises(FingerprintMismatch, match="its weights changed"):
        text_encoder(spec)


@pytest.mark.parametrize("is_known", [True, False])
def test_the_model_of_imported_embeddings(is_known, spec, model, whole_loads):
    known = spec.text_space if is_known else None
    claim = ClaimedSpec(source=spec.source, embedding_dim=32, precision="fp32", known_text_space=known)
    for _ in range(2):
        encoder = text_encoder(claim)
        assert encoder.text_space == spec.text_space
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), reference(spec), rtol=0, atol=1e-6)
    assert len(whole_loads) == 1
    change(model, "transformer.")
    if is_known:
        with pytest.raises(FingerprintMismatch):
            text_encoder(claim)
    else:  # nobody knows which weights made them
        assert text_encoder(claim).text_space != spec.text_space


def test_the_built_in_model_is_kept(whole_loads):
    spec = load_model(ModelSource(model="scenes", adapter="scenes"), "fp32", "cpu").spec
    for _ in range(2):
        np.testing.assert_allclose(text_encoder(spec).encode_texts(TEXTS), reference(spec), rtol=0, atol=1e-6)
    assert len(whole_loads) == 1


def test_random_weights_are_named_by_their_model():
    source = ModelSource(model="ViT-S-32-alt", random_weights=True)
    spec = load_model(source, "fp32", "cpu").spec
    first, second = (text_encoder(spec).encode_texts(["a cat"]) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_checkpoint_file_that_looks_like_a_tag_is_always_read(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tag").write_bytes(b"")
    assert kept.Keeper(ModelSource(model="ViT-B-32", pretrained="tag"), "0" * 64)._files is None
    assert kept.Keeper(ModelSource(model="ViT-B-32", pretrained="openai"), "0" * 64)._files == {}


def test_texts_on_a_gpu_use_the_whole_model(spec, monkeypatch):
    text_encoder(spec)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        text_encoder(spec, "cuda")


def test_other_towers_are_loaded_whole_every_time(tmp_path, model, cache, whole_loads):
    path = model / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["norm_kwargs"] = {"eps": 1e-6}
    path.write_text(json.dumps(config))
    spec = load_model(ModelSource(model=f"local-dir:{model}"), "fp32", "cpu").spec
    encoders = [text_encoder(spec) for _ in range(2)]
    assert [type(encoder) for encoder in encoders] == [Encoder, Encoder]
    assert len(whole_loads) == 2
    assert not cache.exists()


def test_threads_share_a_tower(spec):
    text_encoder(spec)
    encoder = text_encoder(spec)
    assert isinstance(encoder, PlainTextEncoder)
    texts = [f"{number} dogs and {'very ' * (number % 7)}many cats" for number in range(400)]
    alone = [encoder.encode_texts([text]) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: encoder.encode_texts([text]), texts))
    assert np.array_equal(alone, together)
    np.testing.assert_allclose(encoder.encode_texts(texts), np.concatenate(alone), rtol=0, atol=1e-6)


def test_several_processes_can_keep_a_tower_at_once(spec, cache):
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(lambda _: text_encoder(spec).encode_texts(TEXTS), range(4)))
    assert all(np.array_equal(vectors[0], other) for other in vectors)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]
