"""Which 8 bits a device computes: int8 on CPUs, fp8 on GPUs that have it; all else is refused in one line."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.model.device import precision_on
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of some capability, as torch would report it."""

    def of(capability):
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")

    return of


def test_8bit_is_what_the_device_has(gpu):
    gpu((8, 9))
    assert precision_on(CPU, "8bit") == precision_on(CPU, "int8") == "int8"
    assert precision_on(GPU, "8bit") == precision_on(GPU, "fp8") == "fp8"
    assert [precision_on(GPU, asked) for asked in ("auto", "fp32", "fp16")] == ["auto", "fp32", "fp16"]


def test_8bit_is_recorded_as_what_ran(tiny_model):
    by_name, as_it_runs = (load_model(ModelSource(model=tiny_model), asked, "cpu").spec for asked in ("8bit", "int8"))
    assert by_name == as_it_runs
    assert by_name.precision == "int8"


@pytest.mark.parametrize(
    ("device", "asked", "capability", "message"),
    [
        (CPU, "fp8", None, "fp8 is for GPUs, but this run uses the CPU; .*--precision 8bit, which is int8 on a CPU"),
        (GPU, "int8", (9, 0), "int8 is for CPUs, but this run uses a GPU; give --precision 8bit, .* or --device cpu"),
        (
            GPU,
            "fp8",
            (8, 6),
            "fp8 needs .* capability 8.9 or later, but a GPU has 8.6; .*bf16, or auto",
        ),
        (GPU, "8bit", (7, 5), "precision = '8bit': fp8 needs an NVIDIA GPU of compute capability 8.9 or later"),
    ],
)
def test_what_a_device_lacks_is_refused_with_what_to_do(gpu, device, asked, capability, message):
    gpu(capability)
    with pytest.raises(ConfigError, match=message) as caught:
        precision_on(device, asked)
    assert "\n" not in str(caught.value)


def test_8_bits_need_onednn_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="int8 needs oneDNN, which this build of torch lacks; give --precision auto"):
        precision_on(CPU, "8bit")


def test_fp8_on_a_cpu_is_refused_before_the_model_is_read(tiny_model):
    with pytest.raises(ConfigError, match="fp8 is for GPUs"):
        load_model(ModelSource(model=tiny_model), "fp8", "cpu")
