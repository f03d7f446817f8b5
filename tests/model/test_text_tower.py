"""Text towers without torch: they give open_clip's tokens and vectors, or are not used."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from pipeline.model.text_tower.compare import plain_encoder
from pipeline.model.text_tower.one_thread import _openblas, blas_on_one_thread
from pipeline.model.text_tower.plain_tokenizer import PlainTokenizer
from pipeline.model.text_tower.plain_tower import _gelu
from pipeline.model.text_tower.shape import shape_of
from tests.kit.tiny import TINY_CONFIG

TEXTS = [
    "a photo of a cat",
    "A CAFÉ &amp; two dogs' tails, 1,234 times!!",
    "雪の中の犬 🐶 naïve <end_of_text> <start_of_text>",
    "a very long description " * 60,
    "\t \n",
    "\u2026\u201d\u201c\u2019 \ufb01ne \u200b\x00 text",
]
PLAIN = {
    "default": {},
    "QuickGELU": {"quick_gelu": True},
    "a tower of its own": {"custom_text": True},
    "no causal mask": {"text_cfg": {"no_causal_mask": True}},
    "other sizes": {"text_cfg": {"context_length": 24, "width": 48, "heads": 3, "layers": 3, "mlp_ratio": 2.5}},
    "a bias of the logits": {"init_logit_bias": -10},
}
OTHERS = {
    "pools the last token": {"custom_text": True, "text_cfg": {"pool_type": "last"}},
    "norms of queries and keys": {"text_cfg": {"qk_norm": True}},
    "another epsilon": {"text_cfg": {"norm_kwargs": {"eps": 1e-3}}},
    "layer scale": {"text_cfg": {"ls_init_value": 0.1}},
    "a class token": {"custom_text": True, "text_cfg": {"embed_cls": True}},
    "another tokenizer": {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}},
}


@pytest.fixture(scope="module")
def loaded_with(tmp_path_factory):
    """Makes the encoder of a tiny model with changes to its configuration. Norms and biases have values, too."""

    def load(changes):
        config = json.loads(json.dumps(TINY_CONFIG))
        text = config["model_cfg"]["text_cfg"] | changes.get("text_cfg", {})
        config["model_cfg"] |= {**changes, "text_cfg": text}
        folder = tmp_path_factory.mktemp("model")
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(3)
            for parameter in clip.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_file({name: tensor.clone() for name, tensor in clip.state_dict().items()}, folder / "model.safetensors")
        return Encoder(load_model(ModelSource(model=f"local-dir:{folder}"), "fp32", "cpu"), None)

    return load


@pytest.mark.parametrize("name", PLAIN)
def test_vectors_are_those_of_open_clip(name, loaded_with):
    reference = loaded_with(PLAIN[name])
    plain = plain_encoder(reference.spec, reference.text_weights(), reference)
    texts = TEXTS * 20  # several batches on several threads
    assert plain.text_space == reference.spec.text_space
    np.testing.assert_allclose(plain.encode_texts(texts), reference.encode_texts(texts), rtol=0, atol=1e-6)
    alone = np.concatenate([plain.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, reference.encode_texts(TEXTS), rtol=0, atol=1e-6)
    assert alone.dtype == np.float32
    assert plain.encode_texts([]).shape == (0, reference.spec.embedding_dim)


@pytest.mark.parametrize("name", OTHERS)
def test_other_towers_are_left_to_open_clip(name, loaded_with):
    reference = loaded_with(OTHERS[name])
    assert plain_encoder(reference.spec, reference.text_weights(), reference) is None


def test_a_tower_with_other_vectors_is_not_used(loaded_with):
    reference = loaded_with({})
    weights = reference.text_weights()
    weights["text_projection"] = weights["text_projection"] + np.eye(32, dtype=np.float32) / 100
    assert plain_encoder(reference.spec, weights, reference) is None
    del weights["text_projection"]
    assert plain_encoder(reference.spec, weights, reference) is None


def test_a_tower_with_other_tokens_is_not_used(loaded_with):
    reference = loaded_with({})
    reference.tokenize = open_clip.SimpleTokenizer(clean="canonicalize")
    assert plain_encoder(reference.spec, reference.text_weights(), reference) is None


@pytest.mark.parametrize(
    ("model", "is_plain"),
    [
        ("ViT-B-16", True),
        ("ViT-L-14-quickgelu", True),
        ("ViT-bigG-14", True),
        ("EVA02-B-16", True),
        ("RN50", True),
        ("ViT-B-16-SigLIP", False),
        ("coca_ViT-B-32", False),
        ("xlm-roberta-base-ViT-B-32", False),
        ("ViT-L-14-CLIPA", False),
    ],
)
def test_which_towers_are_plain(model, is_plain):
    assert (shape_of(open_clip.get_model_config(model)) is not None) == is_plain


def test_an_option_that_open_clip_may_get_later_is_not_plain():
    config = open_clip.get_model_config("ViT-B-16")
    assert shape_of(config | {"new_option": 1}) is None
    assert shape_of(config | {"text_cfg": config["text_cfg"] | {"new_option": 1}}) is None


@pytest.mark.parametrize("length", [8, 77])
def test_tokens_are_those_of_open_clip(length):
    ours, theirs = PlainTokenizer(length), open_clip.SimpleTokenizer(context_length=length)
    random = np.random.default_rng(0)
    words = [word.removesuffix("</w>") for word in theirs.encoder]
    texts = TEXTS + [" ".join(random.choice(words, 12)) for _ in range(300)]
    assert np.array_equal(ours(texts), theirs(texts).numpy())


def test_the_tokenizer_leaves_torch_and_open_clip_alone():
    program = """
import sys
from pipeline.model.text_tower.plain_tokenizer import PlainTokenizer
ids = PlainTokenizer(77)(["a cat"])
assert not {"torch", "open_clip"} & set(sys.modules)
import open_clip
assert (open_clip.tokenize("a cat").numpy() == ids).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_gelu_is_exact():
    x = np.concatenate([np.linspace(-12, 12, 200_001), [-1e30, -8.5, 1e30, 0.0]]).astype(np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(_gelu(x), expected, rtol=3e-7, atol=1e-7)


@pytest.mark.skipif(_openblas() is None, reason="this numpy has another BLAS")
def test_blas_gets_its_threads_back():
    get, set_to = _openblas()
    before = get()
    set_to(3)
    try:
        inside, may_leave = threading.Event(), threading.Event()

        def stay():
            with blas_on_one_thread():
                inside.set()
                may_leave.wait(10)

        other = threading.Thread(target=stay)
        other.start()
        inside.wait(10)
        with pytest.raises(KeyError), blas_on_one_thread():
            raise KeyError(get())
        assert get() == 1  # the other thread is still inside
        may_leave.set()
        other.join()
        assert get() == 3
    finally:
        set_to(before)
