"""8-bit products on CPUs that add pairs of products in 16 bits: the same sums as everywhere."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from pipeline.model.quantization.products import Int8Linear, Range, quantize
from pipeline.model.towers.parts import Linear

torch.manual_seed(0)
for inputs in (64, 192, 67):
    weight_NK = torch.rand(48, inputs) * 0.1 + 0.9  # all large, so that pairs of products are as large as they get
    weight_NK[::2] *= -1
    weight_NK[::3] = torch.randn(16, inputs)
    linear, found = Linear(weight_NK=weight_NK, bias_N=None), Range(scale=1 / 255, zero_point=0)
    x_RK = 0.8 + 0.2 * torch.rand(50, inputs)
    right = x_RK @ weight_NK.T
    error = (Int8Linear(linear, found)(quantize(x_RK, found)) - right).abs().max() / right.abs().max()
    assert error < 0.02, error
"""


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_sums_do_not_overflow_without_vnni(instructions):
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
