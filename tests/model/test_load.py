"""Loading models: what is accepted and refused, and what the fingerprint covers."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ConfigError, InputError
from pipeline.model.hashing import hash_tensors
from pipeline.model.load import input_side, load_model, with_policy
from pipeline.model.pruning.policy import PruningPolicy, choose_policy, named_policy
from pipeline.model.spec import ModelSource, Preprocess


def folder_of(tiny_model):
    return Path(tiny_model.removeprefix("local-dir:"))


@pytest.fixture(scope="module")
def tiny_spec(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu").spec


@pytest.fixture
def variant(tiny_model, tmp_path):
    """Make a copy of the tiny model with changed tensors or files, and return its spec."""

    def make(change_tensors=None, change_config=None, save=None, precision="fp32"):
        folder = shutil.copytree(folder_of(tiny_model), tmp_path / "variant")
        weights = folder / "open_clip_model.safetensors"
        tensors = load_file(weights)
        if change_tensors:
            change_tensors(tensors)
        weights.unlink()
        (save or (lambda: save_file(tensors, weights)))(*((tensors, folder) if save else ()))
        if change_config:
            config = json.loads((folder / "open_clip_config.json").read_text())
            change_config(config)
            (folder / "open_clip_config.json").write_text(json.dumps(config))
        return load_model(ModelSource(model=f"local-dir:{folder}"), precision, "cpu").spec

    return make


def halves(spec):
    return spec.text_space, spec.image_space


def test_spec_describes_the_loaded_model(tiny_spec, tiny_config):
    assert tiny_spec.architecture == tiny_config["model_cfg"]
    assert tiny_spec.embedding_dim == 32
    assert tiny_spec.preprocess == Preprocess(height=32, width=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert tiny_spec.policy is None
    assert tiny_spec.fingerprint == f"{tiny_spec.text_space[:16]}-{tiny_spec.image_space[:16]}"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_model_equals_open_clips_own_in_every_precision(tiny_model, precision):
    ours = load_model(ModelSource(model=tiny_model), precision, "cpu").clip
    theirs = open_clip.create_model(tiny_model, precision=precision).eval()
    assert {name: tensor.dtype for name, tensor in ours.state_dict().items()} == {
        name: tensor.dtype for name, tensor in theirs.state_dict().items()
    }
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert not ours.training
    # frozen parameters keep torch's matmul off its fast path
    assert all(parameter.requires_grad for parameter in ours.parameters())


def test_fingerprint_does_not_depend_on_the_file_format(variant, tiny_spec):
    spec = variant(save=lambda tensors, folder: torch.save(tensors, folder / "open_clip_pytorch_model.bin"))
    assert spec.weights_sha256 == tiny_spec.weights_sha256
    assert spec.fingerprint == tiny_spec.fingerprint
    assert spec.source != tiny_spec.source  # another path: recorded, but not part of the fingerprint


def test_fingerprint_does_not_depend_on_the_order_or_type_in_the_file(variant, tiny_model):
    halved = {
        name: tensor.half() for name, tensor in load_file(folder_of(tiny_model) / "open_clip_model.safetensors").items()
    }
    as_half = variant(save=lambda _, folder: save_file(halved, folder / "open_clip_model.safetensors"))
    shutil.rmtree(as_half.source.model.removeprefix("local-dir:"))
    backwards = {name: halved[name].float() for name in reversed(halved)}
    as_float = variant(save=lambda _, folder: torch.save(backwards, folder / "model.pth"))
    assert as_half.weights_sha256 == as_float.weights_sha256


def test_other_precision_changes_the_image_half_only(tiny_model, tiny_spec):
    spec = load_model(ModelSource(model=tiny_model), "bf16", "cpu").spec
    assert spec.weights_sha256 == tiny_spec.weights_sha256
    assert spec.text_space == tiny_spec.text_space
    assert spec.image_space != tiny_spec.image_space


def test_other_policy_changes_the_image_half_only(tiny_spec):
    policies = [
        None,
        named_policy("reference"),
        choose_policy("reference", 0.5),
        named_policy("balanced"),
        named_policy("lossless"),
    ]
    specs = [with_policy(tiny_spec, policy) for policy in policies]
    assert {spec.text_space for spec in specs} == {tiny_spec.text_space}
    assert len({spec.image_space for spec in specs}) == len(policies)


def test_renaming_a_policy_does_not_change_the_encoder(tiny_spec):
    one, other = (with_policy(tiny_spec, PruningPolicy(name=name)) for name in ("reference", "mine"))
    assert one.fingerprint == other.fingerprint


def test_other_text_weights_change_the_text_half_only(variant, tiny_spec):
    spec = variant(lambda tensors: tensors["transformer.resblocks.0.ln_1.weight"].add_(0.1))
    assert spec.text_space != tiny_spec.text_space
    assert spec.image_space == tiny_spec.image_space


def test_other_image_weights_change_the_image_half_only(variant, tiny_spec):
    spec = variant(lambda tensors: tensors["visual.ln_post.weight"].add_(0.1))
    assert spec.text_space == tiny_spec.text_space
    assert spec.image_space != tiny_spec.image_space


def test_logit_scale_belongs_to_neither_half(variant, tiny_spec):
    spec = variant(lambda tensors: tensors["logit_scale"].add_(1))
    assert halves(spec) == halves(tiny_spec)
    assert spec.weights_sha256 != tiny_spec.weights_sha256


def test_other_preprocessing_changes_the_image_half_only(variant, tiny_spec):
    spec = variant(change_config=lambda config: config["preprocess_cfg"].update(resize_mode="squash"))
    assert spec.text_space == tiny_spec.text_space
    assert spec.image_space != tiny_spec.image_space


def test_an_adapter_changes_the_halves_it_touches(tiny_spec):
    of_images = tiny_spec.model_copy(update={"adapter": "0" * 64})
    of_both = of_images.model_copy(update={"text_adapter": "0" * 64})
    assert of_images.text_space == tiny_spec.text_space != of_both.text_space
    assert of_images.image_space == of_both.image_space != tiny_spec.image_space


def test_hash_of_tensors_covers_names_shapes_types_and_values():
    one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    variants = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a2": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.full((1,), 2.0)},
    ]
    assert len({hash_tensors(tensors.items()) for tensors in [one, *variants]}) == 5
    assert hash_tensors(reversed(one.items())) == hash_tensors(one.items())


def test_local_dir_is_recorded_absolute(tiny_model, tiny_spec, monkeypatch):
    folder = folder_of(tiny_model)
    monkeypatch.chdir(folder.parent)
    spec = load_model(ModelSource(model=f"local-dir:{folder.name}"), "fp32", "cpu").spec
    assert spec.source.model == f"local-dir:{folder.resolve()}"
    assert spec == tiny_spec


def test_checkpoint_file_is_recorded_absolute(tmp_path, monkeypatch):
    (tmp_path / "weights.pt").touch()
    (tmp_path / "openai").touch()
    monkeypatch.chdir(tmp_path)
    absolute = ModelSource(model="ViT-B-32", pretrained="weights.pt").absolute()
    assert absolute == ModelSource(model="ViT-B-32", pretrained=str(tmp_path.resolve() / "weights.pt"))
    tag = ModelSource(model="ViT-B-32", pretrained="openai")  # a tag takes precedence over a file of the same name
    assert tag.absolute() == tag


def test_tokenizer_comes_with_the_model(tiny_model):
    loaded = load_model(ModelSource(model=tiny_model), "fp32", "cpu")
    tokens = loaded.tokenize(["two dogs"])
    assert tokens.shape == (1, 77)
    assert loaded.clip.encode_text(tokens).shape == (1, 32)


def test_name_without_a_tag_is_refused():
    with pytest.raises(ConfigError, match=r"ViT-B-32 .*random weights without a pretrained tag.*openai.*--random-w"):
        load_model(ModelSource(model="ViT-B-32"), "fp32", "cpu")


def test_random_weights_are_the_same_each_time():
    source = ModelSource(model="ViT-S-32-alt", random_weights=True)
    specs = [load_model(source, "fp32", "cpu").spec for _ in range(2)]
    assert specs[0] == specs[1]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({"model": "ViT-B-23"}, InputError, r"unknown model 'ViT-B-23'; did you mean .*ViT-B-32"),
        ({"model": "resnet-of-mine"}, InputError, r"unknown model 'resnet-of-mine'; "),
        ({"model": "ViT-B-32", "pretrained": "no-such-tag"}, InputError, r"cannot load model ViT-B-32 / no-such-tag: "),
        ({"model": "local-dir:/no/such"}, InputError, r"cannot load model local-dir:/no/such: .*not found"),
        ({"model": "local-dir:"}, InputError, r"cannot load model local-dir:"),
        ({"model": "scenes", "pretrained": "openai"}, ConfigError, r"scenes .*own weights; drop --pretrained"),
        ({"model": "hf-hub:a/b", "random_weights": True}, ConfigError, r"hf-hub:a/b .*own weights; drop --pretrained"),
    ],
)
def test_load_errors_are_one_line(source, error, message, caplog):
    with pytest.raises(error, match=message) as caught:
        load_model(ModelSource(**source), "fp32", "cpu")
    assert "\n" not in str(caught.value)
    assert not caplog.records  # open_clip logs the same errors to the root logger, which prints them


def test_folder_without_weights_is_refused(tiny_model, tmp_path):
    shutil.copy(folder_of(tiny_model) / "open_clip_config.json", tmp_path)
    with pytest.raises(InputError, match=r"cannot load model local-dir:.*pretrained weights"):
        load_model(ModelSource(model=f"local-dir:{tmp_path}"), "fp32", "cpu")


def test_damaged_weights_are_refused(tiny_model, tmp_path):
    folder = shutil.copytree(folder_of(tiny_model), tmp_path / "damaged")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(InputError, match="cannot load model"):
        load_model(ModelSource(model=f"local-dir:{folder}"), "fp32", "cpu")


@pytest.mark.parametrize(
    ("model", "tag", "advice"),
    [
        ("ViT-B-16", "openai", "trained with QuickGELU; give --model ViT-B-16-quickgelu"),
    ],
)
def test_weights_of_another_activation_are_refused(model, tag, advice):
    with pytest.raises(ConfigError, match=advice):
        load_model(ModelSource(model=model, pretrained=tag), "fp32", "cpu")


@pytest.mark.parametrize("size", [24, 48])
def test_image_size_interpolates_positions(tiny_model, tiny_spec, size):
    loaded = load_model(ModelSource(model=tiny_model, image_size=size), "bf16", "cpu")
    preprocess = loaded.spec.preprocess
    assert (preprocess.height, preprocess.width) == (size, size)
    assert loaded.clip.visual.grid_size == (size // 8, size // 8)
    assert loaded.spec.architecture["vision_cfg"]["image_size"] == size
    assert loaded.spec.image_space != tiny_spec.image_space
    assert loaded.spec.text_space == tiny_spec.text_space
    features = loaded.clip.encode_image(torch.zeros(1, 3, size, size, dtype=torch.bfloat16))
    assert features.shape == (1, 32)


@pytest.mark.parametrize("size", [4, 5000])
def test_impossible_image_size_is_refused(tiny_model, size):
    with pytest.raises(ConfigError, match=rf"image_size = {size}: expected 8 to 4096 \(a patch is 8 pixels\)"):
        load_model(ModelSource(model=tiny_model, image_size=size), "fp32", "cpu")


def test_a_missing_tokenizer_is_an_error_on_first_use(tiny_model, monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'transformers'")

    loaded = load_model(ModelSource(model=tiny_model), "fp32", "cpu")
    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(InputError, match=r"cannot load the tokenizer of .*'transformers'; .*pip install transformers"):
        loaded.tokenize(["a dog"])
    monkeypatch.undo()
    assert loaded.tokenize(["a dog"]).shape == (1, 77)


def test_the_side_of_the_input_is_known_before_loading(tiny_model, resnet_model):
    assert input_side(tiny_model) == (32, 8)
    assert input_side("scenes") == (96, 8)
    assert input_side("ViT-B-16-SigLIP") == (224, 16), "from the name of its timm tower"
    assert input_side(resnet_model) == (32, 32), "without patches, what the tower shrinks the image by"
    assert input_side("ViT-B-17") is None
    assert input_side("local-dir:/nowhere") is None
