"""Adapters with arbitrary factors, in memory and on disk."""

import torch

from pipeline.model.adapter.files import write_adapter
from pipeline.model.adapter.fusion import Fusion, FusionConfig
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource

ALL = ("q", "k", "v", "o", "mlp")


def trained(fusion, size=0.3):
    """Perturb every parameter of the fusion, as if it had been trained."""
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return fusion


def write(folder, model, offsets=None, **config):
    loaded = load_model(ModelSource(model=model), "fp32", "cpu")
    fusion = trained(Fusion(loaded.clip, FusionConfig(rank=4, targets=ALL, **config)), 0.1)
    base = {"model": model, "pretrained": None, "weights_sha256": loaded.spec.weights_sha256}
    write_adapter(folder, fusion, offsets, base, {"results": {}})
    return str(folder)
