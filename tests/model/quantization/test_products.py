"""8-bit products against the same sums by hand, and against float."""

import pytest
import torch
from torch import nn

from pipeline.model.quantization.observe import Input, best_range, without_outliers
from pipeline.model.quantization.products import Int8Linear, Range, quantize
from pipeline.model.towers.parts import Linear, activate


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(3)
    return Linear(
        weight_NK=torch.randn(48, 64, generator=generator) / 8, bias_N=torch.randn(48, generator=generator) / 4
    )


@pytest.fixture
def x_RK():
    return torch.randn(40, 64, generator=torch.Generator().manual_seed(4))


def range_of(x_RK, linear):
    seen = Input(max_rows=1024)
    seen.see(x_RK.unsqueeze(0))
    return best_range(seen, linear)


def relative_error(given, right):
    return ((given - right).norm() / right.norm()).item()


def test_rounding_by_hand():
    x = torch.tensor([-2.0, -0.5, -0.24, 0.0, 0.26, 0.5, 200.0, -200.0])
    assert quantize(x, Range(scale=0.5, zero_point=10)).tolist() == [6, 9, 10, 10, 11, 11, 255, 0]


def test_smoothing_divides_each_channel_by_hand():
    found = Range(scale=0.5, zero_point=10, smooth_K=torch.tensor([1.0, 4.0]))
    assert quantize(torch.tensor([[2.0, 8.0]]), found).tolist() == [[14, 14]]


@pytest.mark.parametrize("smooth_K", [None, torch.tensor([2.0, 0.5])])
def test_a_product_of_numbers_that_need_no_rounding_is_exact(smooth_K):
    weight_NK = torch.tensor([[127.0, -64.0], [0.25, -127 / 4]])
    bias_N = torch.tensor([0.5, -0.25])
    if smooth_K is not None:
        weight_NK = weight_NK / smooth_K
    product = Int8Linear(Linear(weight_NK=weight_NK, bias_N=bias_N), Range(scale=1.0, zero_point=3, smooth_K=smooth_K))
    # (9 - 3, 1 - 3) = (6, -2) are the inputs; row 1 is 1/4 x (1, -127)
    assert product(torch.tensor([[9, 1]], dtype=torch.uint8)).tolist() == [[6 * 127 + 2 * 64 + 0.5, 1.5 + 63.5 - 0.25]]


def test_a_product_adds_to_a_residual(linear, x_RK):
    found = range_of(x_RK, linear)
    product, x_u8 = Int8Linear(linear, found), quantize(x_RK, found)
    residual = torch.ones(40, 48)
    product.add_to(residual, x_u8)
    assert torch.allclose(residual, 1 + product(x_u8), atol=1e-6)


def test_a_layer_without_a_bias(linear, x_RK):
    found = range_of(x_RK, linear)
    given, bare = (
        Int8Linear(Linear(weight_NK=linear.weight_NK, bias_N=bias_N), found)(quantize(x_RK, found))
        for bias_N in (linear.bias_N, None)
    )
    assert torch.allclose(given - linear.bias_N, bare, atol=1e-6)


def test_a_product_is_near_float(linear, x_RK):
    found = range_of(x_RK, linear)
    given = Int8Linear(linear, found)(quantize(x_RK, found))
    right = nn.functional.linear(x_RK, linear.weight_NK, linear.bias_N)
    assert 0 < relative_error(given, right) < 0.012


@pytest.mark.parametrize("activation", ["none", "tanh", "quick"])
def test_every_gelu_is_near_float_and_rounds_to_its_range(linear, x_RK, activation):
    found = range_of(x_RK, linear)
    product, x_u8 = Int8Linear(linear, found, activation), quantize(x_RK, found)
    right = activate(activation, nn.functional.linear(x_RK, linear.weight_NK, linear.bias_N))
    assert relative_error(product(x_u8), right) < 0.02
    output = Range(scale=5 / 255, zero_point=10)
    restored = (product.rounded(x_u8, output).float() - output.zero_point) * output.scale
    assert (restored - product(x_u8)).abs().max() <= output.scale * 0.51


def test_the_gelus_differ(linear, x_RK):
    found = range_of(x_RK, linear)
    exact, tanh, quick = (
        Int8Linear(linear, found, activation)(quantize(x_RK, found)) for activation in ("none", "tanh", "quick")
    )
    assert 0 < (exact - tanh).abs().max() < 1e-3
    assert (exact - quick).abs().max() > 5e-3


def test_outlier_channels_are_left_to_a_float_product(linear, x_RK):
    x_RK = nn.functional.gelu(x_RK)
    x_RK[:, 5] = 200.0
    seen = Input(max_rows=1024)
    seen.see(x_RK.unsqueeze(0))
    found = without_outliers(seen)
    assert 5 in found.outliers_M
    channels_M = found.outliers_M
    given = Int8Linear(linear, found)(quantize(x_RK, found)) + x_RK[:, channels_M] @ linear.weight_NK[:, channels_M].T
    right = nn.functional.linear(x_RK, linear.weight_NK, linear.bias_N)
    assert relative_error(given, right) < 1e-3


def test_a_result_depends_neither_on_the_batch_nor_on_threads(linear, x_RK):
    found = range_of(x_RK, linear)
    product, x_u8 = Int8Linear(linear, found, "none"), quantize(x_RK, found)
    whole = product(x_u8)
    assert torch.equal(torch.cat([product(part.contiguous()) for part in x_u8.split(7)]), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(product(x_u8), whole)
    finally:
        torch.set_num_threads(threads)


def test_weights_of_zero_are_finite(x_RK):
    linear = Linear(weight_NK=torch.zeros(8, 64), bias_N=None)
    found = range_of(x_RK, linear)
    assert torch.equal(Int8Linear(linear, found)(quantize(x_RK, found)), torch.zeros(40, 8))
