"""The first convolution of a tower as one matrix product."""

from functools import partial

import pytest
import torch
from torch import nn

from pipeline.model.towers.families import view_of
from pipeline.model.towers.patchify import conv_forward, is_product
from tests.kit.families import FAMILIES


@pytest.mark.parametrize("size", [(32, 32), (35, 47), (8, 16)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_the_product_equals_the_convolution(size, bias, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 24, kernel_size=(8, 16), stride=(8, 16), bias=bias)
    images = torch.randn(2, 3, *size).to(memory_format=memory_format)
    torch.testing.assert_close(conv_forward(conv, images), conv(images))


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_every_family_gives_the_same_features_with_the_product(make):
    torch.manual_seed(0)
    tower, images = make().eval(), torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    expected = tower(images)
    [conv] = filter(is_product, view_of(tower).stem.modules())
    conv.forward = partial(conv_forward, conv)
    torch.testing.assert_close(tower(images), expected, rtol=1e-4, atol=1e-5)


def test_other_convolutions_are_left_alone():
    others = [{"stride": 1}, {"padding": 1}, {"groups": 2}, {"dilation": 2}]
    assert not any(is_product(nn.Conv2d(4, 4, 2, **({"stride": 2} | other))) for other in others)
    assert not is_product(nn.Linear(2, 2))
    assert is_product(nn.Conv2d(4, 4, 2, stride=2))
