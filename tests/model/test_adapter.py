"""Adapters on disk: writing, refusing damaged ones and those of other models, merging on load, exporting."""

import json
import pickle
import shutil

import numpy as np
import open_clip
import pytest
import torch

from pipeline.errors import InputError, StoreError
from pipeline.model.adapter.files import read_adapter
from pipeline.model.adapter.fusion import FusionConfig
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.export import export_checkpoint
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ModelSource
from query.text import text_encoder
from tests.kit.adapters import ALL, write

OFFSETS = torch.linspace(-1, 1, 32).repeat(4, 1)  # the next norm would remove a constant


def load(model, adapter, precision="fp32", **parts):
    return load_model(ModelSource(model=model, adapter=adapter, **parts), precision, "cpu")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_model):
    return write(tmp_path_factory.mktemp("adapter") / "shared", tiny_model)


@pytest.fixture(scope="module")
def of_images(tmp_path_factory, tiny_model):
    return write(tmp_path_factory.mktemp("adapter") / "images", tiny_model, OFFSETS, variant="image-only")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_an_adapter_is_read_as_it_was_written(of_images):
    first, again = read_adapter(of_images), read_adapter(of_images)
    assert first.sha256 == again.sha256
    assert len(first.sha256) == 64
    assert torch.equal(first.summary_offsets_LD, OFFSETS)
    assert first.config == FusionConfig(rank=4, targets=ALL, variant="image-only")


def test_the_hash_covers_factors_offsets_and_config(tmp_path, tiny_model, of_images):
    hashes = {
        read_adapter(of_images).sha256,
        read_adapter(write(tmp_path / "a", tiny_model, variant="image-only")).sha256,
        read_adapter(write(tmp_path / "b", tiny_model, OFFSETS, variant="image-only", alpha=3.0)).sha256,
        read_adapter(write(tmp_path / "c", tiny_model, 2 * OFFSETS, variant="image-only")).sha256,
    }
    assert len(hashes) == 4


def test_the_fingerprint_shows_what_the_adapter_changes(tiny_model, adapter, of_images):
    bare, both, images = (load(tiny_model, name).spec for name in (None, adapter, of_images))
    assert both.adapter == both.text_adapter == read_adapter(adapter).sha256
    assert len({spec.image_space for spec in (bare, both, images)}) == 3
    assert images.text_space == bare.text_space != both.text_space
    assert {spec.weights_sha256 for spec in (bare, both, images)} == {bare.weights_sha256}
    assert both.adapter[:16] in both.describe()


def test_an_image_only_adapter_keeps_the_texts_of_the_bare_model(tiny_model, of_images, tmp_path):
    spec = load(tiny_model, str(shutil.copytree(of_images, tmp_path / "gone"))).spec
    shutil.rmtree(tmp_path / "gone")  # a search needs the adapter only if it updates both towers
    texts = ["a cat", "a dog"]
    bare = Encoder(load(tiny_model, None), None).encode_texts(texts)
    np.testing.assert_allclose(text_encoder(spec).encode_texts(texts), bare, rtol=0, atol=1e-6)


def test_an_adapter_of_both_towers_changes_the_texts(tiny_model, adapter):
    texts = ["a cat", "a dog"]
    bare = Encoder(load(tiny_model, None), None).encode_texts(texts)
    adapted = text_encoder(load(tiny_model, adapter).spec).encode_texts(texts)
    assert np.abs(adapted - bare).max() > 0.01


def test_offsets_affect_only_policies_with_summaries(tiny_model, tmp_path, pixels):
    paths = [write(tmp_path / str(n), tiny_model, n * OFFSETS, variant="image-only") for n in range(2)]
    loaded = [load(tiny_model, path) for path in paths]
    for name, has_effect in (("reference", True), ("fast", False), ("none", False)):
        without, with_offsets = (Encoder(sharing_weights(model), named_policy(name)).encode(pixels) for model in loaded)
        assert (np.abs(with_offsets - without).max() > 1e-3) == has_effect, name


def test_every_precision_merges_in_float32(tiny_model, adapter):
    merged = load(tiny_model, adapter).clip.state_dict()
    low = load(tiny_model, adapter, "bf16").clip.state_dict()
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    assert torch.equal(low[name], merged[name].bfloat16())


def test_an_adapter_fits_its_model_at_another_image_size(tiny_model, adapter):
    assert load(tiny_model, adapter, image_size=64).spec.adapter


def test_a_merged_model_has_the_modules_of_the_bare_model(tiny_model, adapter):
    bare, merged = load(tiny_model, None).clip, load(tiny_model, adapter).clip
    assert [type(module) for module in merged.modules()] == [type(module) for module in bare.modules()]
    assert list(merged.state_dict()) == list(bare.state_dict())
    pickle.loads(pickle.dumps(merged))


def test_another_base_model_is_refused_with_both_hashes(adapter, tiny_model, tmp_path):
    other = shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "other")
    torch.manual_seed(1)
    config = json.loads((other / "open_clip_config.json").read_text())["model_cfg"]
    from safetensors.torch import save_file

    save_file(open_clip.CLIP(**config).state_dict(), other / "open_clip_model.safetensors")
    hashes = [load(model, None).spec.weights_sha256 for model in (tiny_model, f"local-dir:{other}")]
    with pytest.raises(InputError, match=f"trained on weights {hashes[0]}.*this model has {hashes[1]}"):
        load(f"local-dir:{other}", adapter)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "No such file or directory"),
        (lambda folder: (folder / "adapter.json").unlink(), "adapter.json"),
        (lambda folder: (folder / "adapter.safetensors").unlink(), "adapter.safetensors"),
        (lambda folder: (folder / "adapter.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "adapter.json").write_text("{}"), "damaged"),
        (lambda folder: (folder / "adapter.json").write_text("[]"), "damaged"),
        (lambda folder: flip(folder / "adapter.safetensors", -1), "tensors do not match its card"),
        (lambda folder: flip(folder / "adapter.safetensors", 3), "damaged"),
        (lambda folder: cut(folder / "adapter.safetensors"), "damaged"),
    ],
)
def test_damage_is_one_clear_error(adapter, tiny_model, tmp_path, damage, message):
    folder = shutil.copytree(adapter, tmp_path / "copy")
    damage(folder)
    with pytest.raises(InputError, match=message):
        load(tiny_model, str(folder))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_an_export_is_open_clips_own(tiny_model, adapter, tmp_path, make_image):
    merged = load(tiny_model, adapter)
    export_checkpoint(merged, tmp_path / "new" / "exported")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["exported"]
    name = f"local-dir:{tmp_path / 'new' / 'exported'}"
    clip, _, preprocess = open_clip.create_model_and_transforms(name)
    state = merged.clip.state_dict()
    assert all(torch.equal(weight, state[key]) for key, weight in clip.state_dict().items())
    _, _, before = open_clip.create_model_and_transforms(tiny_model)
    image = make_image(50, 40)
    assert torch.equal(preprocess(image), before(image))
    assert open_clip.get_tokenizer(name)(["a cat"]).shape == open_clip.get_tokenizer(tiny_model)(["a cat"]).shape
    again = load(name, None)
    pixels = np.full((1, 32, 32, 3), 90, dtype=np.uint8)
    assert np.array_equal(Encoder(again, None).encode(pixels), Encoder(merged, None).encode(pixels))


def test_an_export_overwrites_nothing_and_leaves_no_temporary_files(tiny_model, tmp_path):
    loaded = load(tiny_model, None)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    with pytest.raises(InputError, match="used already exists"):
        export_checkpoint(loaded, tmp_path / "used")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises((StoreError, InputError)):
        export_checkpoint(loaded, tmp_path / "file" / "inside")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "used"]
