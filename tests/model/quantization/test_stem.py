"""The patch embedding by 8-bit products, from uint8 pixels."""

import pytest
import torch
from open_clip.timm_model import TimmModel
from torch import nn

from pipeline.model.calibrate import calibrated
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.quantization.stem import Int8Stem, stem_of
from pipeline.model.spec import ModelSource, Preprocess
from pipeline.model.transform import PixelScaling, as_channels

PREPROCESS = Preprocess(height=32, width=48, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (5, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bias", [True, False])
def test_the_patch_embedding_of_pixels(pixels, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 24, (8, 16), (8, 16), bias=bias)
    right = conv(PixelScaling(PREPROCESS, torch.device("cpu"), torch.float32)(pixels))
    found = Int8Stem(conv, PREPROCESS)(as_channels(pixels))
    assert found.shape == right.shape
    assert (found - right).abs().max() < 0.01 * right.abs().max()


def test_weights_that_need_no_rounding_give_exact_sums(pixels):
    conv = nn.Conv2d(3, 2, 16, 16, bias=False)
    plain = Preprocess(height=32, width=48, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[127.0], [-1.0]]).repeat(1, 768).view(2, 3, 16, 16))
        conv.weight[:, 1:] = 0  # so that no two neighbours add up to more than 8 bits
    right = nn.functional.conv2d(as_channels(pixels).double(), conv.weight.detach().double(), stride=16)
    assert torch.equal(Int8Stem(conv, plain)(as_channels(pixels)).double(), right)


def test_first_layers_that_are_no_product_of_patches():
    assert stem_of(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2))) is None
    assert stem_of(nn.Conv2d(3, 8, 7, 4)) is None
    assert stem_of(TimmModel("vit_tiny_patch16_224", 32, 32, pool="", proj="linear").trunk.patch_embed) is not None


def test_an_encoder_reads_pixels_until_it_is_detached(tiny_model, pixels):
    loaded = load_model(ModelSource(model=tiny_model), "int8", "cpu")
    side = loaded.spec.preprocess.height
    images = torch.randint(0, 256, (20, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    loaded = calibrated(sharing_weights(loaded), None, [images.numpy()])
    encoder = Encoder(loaded, None)
    assert encoder.coverage.reads_pixels
    conv = stem_of(loaded.clip.visual)
    assert "forward" in vars(conv)
    assert encoder.encode(images).shape == (20, loaded.spec.embedding_dim)
    encoder.detach()
    encoder.detach()
    assert "forward" not in vars(conv)
