"""The encode stage, without Ray: pixels and texts in, unit vectors out."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pipeline.errors import ClipsieveError
from pipeline.measure.timing import images_per_second
from pipeline.model.encode import Encoder, fastest_encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning import cost
from pipeline.model.pruning.cost import gmacs_per_image
from pipeline.model.pruning.policy import choose_policy, named_policy, sharpened
from pipeline.model.spec import ModelSource

POLICY = choose_policy("reference", 0.5)


@pytest.fixture
def loaded(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu")


@pytest.fixture
def pixels(make_image):
    return np.stack([np.asarray(make_image(32, 32, number)) for number in range(3)])


def unit(features):
    return torch.nn.functional.normalize(features, dim=-1).numpy()


@torch.no_grad()
def test_images_and_texts_are_embedded_as_open_clip_does(tiny_model, loaded, pixels):
    clip, _, transform = open_clip.create_model_and_transforms(tiny_model)
    clip.eval()
    encoder = Encoder(loaded, None)
    expected = unit(clip.encode_image(torch.stack([transform(Image.fromarray(image)) for image in pixels])))
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-6)
    texts = ["a red square", "two dogs"]
    expected = unit(clip.encode_text(open_clip.get_tokenizer(tiny_model)(texts)))
    np.testing.assert_allclose(encoder.encode_texts(texts, batch_size=1), expected, atol=1e-6)


def test_embeddings_are_unit_float32(loaded, pixels):
    embeddings = Encoder(loaded, POLICY).encode(pixels)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_near_full_precision(tiny_model, loaded, pixels, precision):
    low = Encoder(load_model(ModelSource(model=tiny_model), precision, "cpu"), POLICY).encode(pixels)
    full = Encoder(loaded, POLICY).encode(pixels)
    assert low.dtype == np.float32
    assert (np.sum(low * full, axis=1) > 0.99).all()
    assert not np.array_equal(low, full)


def test_an_encoder_reports_its_spec_and_cost(loaded):
    encoder = Encoder(loaded, POLICY)
    assert encoder.spec == loaded.spec.model_copy(update={"policy": POLICY})
    assert encoder.tokens_kept == 8
    assert encoder.gmacs == gmacs_per_image(loaded.clip.visual, POLICY, (32, 32))
    encoder.detach()
    assert Encoder(loaded, None).tokens_kept == 16


def test_copies_that_share_weights_do_not_affect_each_other(loaded, pixels):
    alone = Encoder(sharing_weights(loaded), None).encode(pixels)
    none, pruned = Encoder(sharing_weights(loaded), None), Encoder(sharing_weights(loaded), POLICY)
    assert not np.allclose(pruned.encode(pixels), alone, atol=1e-3)
    np.testing.assert_array_equal(none.encode(pixels), alone)


def test_an_embedding_that_is_not_finite_is_an_error(loaded, pixels):
    loaded.clip.visual.proj.data[0, 0] = float("nan")
    with pytest.raises(
        ClipsieveError, match=r"the embedding of an image is not finite \(.*fp32\)\); use fp32, or other"
    ):
        Encoder(loaded, None).encode(pixels)


# --- timing


class Recorder:
    """Stand-in for an encoder: records its batches, computes nothing."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def encode(self, pixels):
        self.calls.append((self.name, len(pixels)))


def test_conditions_are_interleaved_after_a_warm_up():
    calls, rounds = [], []
    pixels = np.zeros((5, 2, 2, 3), np.uint8)
    towers = {name: (Recorder(name, calls), pixels) for name in ("none", "pruned")}
    rates = images_per_second(towers, batch_size=2, rounds=2, on_round=rounds.append)
    once = [[(name, 2), (name, 2), (name, 1)] for name in ("none", "pruned")]
    forth, back = once[0] + once[1], once[1] + once[0]
    assert calls == forth + back + forth  # a warm-up and two rounds; every other round reverses the order
    assert {name: len(values) for name, values in rates.items()} == {"none": 2, "pruned": 2}
    assert rounds == [0, 1, 2]


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.9999)])
def test_collections_are_embedded_unpruned_as_open_clip_does(tiny_model, pixels, precision, least):
    loaded = load_model(ModelSource(model=tiny_model), precision, "cpu")
    plain, quick = Encoder(sharing_weights(loaded), None), fastest_encoder(sharing_weights(loaded), None)
    assert quick.spec == plain.spec
    assert quick.tokens_kept == plain.tokens_kept == 16
    assert quick.gmacs < plain.gmacs
    assert (np.sum(quick.encode(pixels) * plain.encode(pixels), axis=1) >= least).all()


def test_a_tower_that_cannot_be_pruned_runs_unchanged(resnet_model, pixels):
    loaded = load_model(ModelSource(model=resnet_model), "fp32", "cpu")
    np.testing.assert_array_equal(fastest_encoder(loaded, None).encode(pixels), Encoder(loaded, None).encode(pixels))


# --- compiled


@pytest.mark.parametrize("policy", [None, named_policy("balanced"), POLICY], ids=["none", "balanced", "reference"])
def test_batches_of_the_compiled_size_run_compiled_and_give_the_same_embeddings(loaded, pixels, policy):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return lambda *inputs: calls.append(1) or graph(*inputs)

    plain, encoder, calls = fastest_encoder(sharing_weights(loaded), policy), fastest_encoder(loaded, policy), []
    assert encoder.compile(3, backend) is None
    for batch, num_calls in ((pixels, 2), (pixels[:2], 2), (pixels[::-1].copy(), 3)):
        np.testing.assert_allclose(encoder.encode(batch), plain.encode(batch), rtol=1e-5, atol=1e-6)
        assert len(calls) == num_calls
    assert len(graphs) == 1  # the whole tower is one graph, compiled once
    encoder.micro_batch = 2  # as after running out of memory
    np.testing.assert_allclose(encoder.encode(pixels), plain.encode(pixels), rtol=1e-5, atol=1e-6)
    assert len(calls) == 3


def test_a_tower_that_cannot_be_compiled_runs_as_before(loaded, pixels):
    def backend(graph, inputs):
        raise OSError("no C++ compiler")

    expected = fastest_encoder(sharing_weights(loaded), None).encode(pixels)
    encoder = fastest_encoder(loaded, None)
    assert "no C++ compiler" in encoder.compile(3, backend)
    np.testing.assert_array_equal(encoder.encode(pixels), expected)


# --- a device whose memory is too small


def out_of_memory_beyond(encoder, limit):
    """Make the tower fail like a GPU for batches larger than `limit`; return the list of attempted sizes."""
    tried = []

    def check(module, arguments):
        tried.append(len(arguments[0]))
        if len(arguments[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    encoder._clip.visual.register_forward_pre_hook(check)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_the_size_is_remembered(loaded, make_image):
    pixels = np.stack([np.asarray(make_image(32, 32, number)) for number in range(8)])
    expected = Encoder(sharing_weights(loaded), POLICY).encode(pixels)
    encoder = Encoder(sharing_weights(loaded), POLICY)
    tried = out_of_memory_beyond(encoder, 2)
    found = encoder.encode(pixels)
    assert (np.sum(found * expected, axis=1) >= 0.9999).all()
    assert tried == [8, 4, 2, 2, 2, 2]
    assert (encoder.micro_batch, encoder.num_halvings) == (2, 2)
    encoder.encode(pixels[:3])
    assert tried[6:] == [2, 1]


def test_memory_too_small_for_one_image_is_an_error(loaded, pixels):
    encoder = Encoder(loaded, None)
    out_of_memory_beyond(encoder, 0)
    with pytest.raises(ClipsieveError, match=r"one image does not fit .*; use a smaller model, a smaller image size"):
        encoder.encode(pixels)


def test_the_schedule_of_a_policy_is_solved_once(tiny_model, monkeypatch):
    solve, calls = cost._feasible_power, []
    monkeypatch.setattr(cost, "_feasible_power", lambda *arguments: calls.append(arguments) or solve(*arguments))
    Encoder(load_model(ModelSource(model=tiny_model), "fp32", "cpu"), named_policy("balanced"))
    assert calls == []  # nothing to solve without a wanted cost
    encoder = Encoder(
        load_model(ModelSource(model=tiny_model), "fp32", "cpu"), sharpened(named_policy("balanced"), 1.3)
    )
    assert len(calls) == 1
    assert encoder.tokens_kept < 16
