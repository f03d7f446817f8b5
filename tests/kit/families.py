"""Small, fast towers of every family that can be pruned, and their cost as counted by torch."""

import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.layers import GELUTanh
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model.pruning.attach import attach

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}


ROPE = {"use_rot_pos_emb": True, "rope_type": "cat", "ref_feat_shape": (4, 4)}


def without_loading(options):
    return {name: value for name, value in options.items() if not name.startswith(("pretrained", "cache"))}


@timm.models.register_model
def small_vit(pretrained=False, **options):
    return TimmVisionTransformer(**SMALL, **without_loading(options))


@timm.models.register_model
def small_vit_registers(pretrained=False, **options):
    return small_vit(**options, reg_tokens=3, init_values=0.1, no_embed_class=True)


@timm.models.register_model
def small_siglip(pretrained=False, **options):
    return small_vit(**options, class_token=False)


@timm.models.register_model
def small_siglip2(pretrained=False, **options):
    return small_siglip(**options, act_layer=GELUTanh)


@timm.models.register_model
def small_convnext(pretrained=False, **options):
    return ConvNeXt(depths=(1, 1, 1, 1), dims=(32, 32, 64, 64), patch_size=2, **without_loading(options))


@timm.models.register_model
def small_swin(pretrained=False, **options):
    shape = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4}
    return SwinTransformer(**shape, **without_loading(options))


@timm.models.register_model
def small_eva02(pretrained=False, **options):
    defaults = {**ROPE, "qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True}
    return Eva(**SMALL, **{**defaults, **without_loading(options)})


@timm.models.register_model
def small_eva02_post_norm(pretrained=False, **options):
    return small_eva02(**options, use_post_norm=True, swiglu_mlp=False, scale_mlp=False)


@timm.models.register_model
def small_eva01(pretrained=False, **options):
    return Eva(**SMALL, init_values=0.1, **without_loading(options))


@timm.models.register_model
def small_perception_encoder(pretrained=False, **options):
    extra = {"use_pre_transformer_norm": True, "attn_type": "rope", "use_fc_norm": False}
    return small_eva02(**options, **extra, swiglu_mlp=False, scale_mlp=False, qkv_fused=True)


def own(**options):
    return VisionTransformer(32, 8, 32, 4, 2, 4.0, output_dim=16, **options)


FAMILIES = {
    "open_clip": own,
    "open_clip, no ln_pre": lambda: own(no_ln_pre=True),
    "open_clip, QuickGELU (DFN, MetaCLIP)": lambda: own(act_layer=QuickGELU),
    "open_clip, query-key norms": lambda: own(qk_norm=True),
    "CoCa": lambda: own(attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4, output_tokens=True),
    "timm, class token": lambda: TimmModel("small_vit", 16, 32, pool="token", proj=None),
    "timm, registers": lambda: TimmModel("small_vit_registers", 16, 32, pool="token", proj=None),
    "SigLIP": lambda: TimmModel("small_siglip", 32, 32, pool="map", proj="none"),
    "EVA01": lambda: TimmModel("small_eva01", 16, 32, pool="token", proj=None),
    "EVA02": lambda: TimmModel("small_eva02", 16, 32, pool="token", proj=None),
    "EVA02, post-norm": lambda: TimmModel("small_eva02_post_norm", 16, 32, pool="token", proj=None),
    "Perception Encoder": lambda: TimmModel("small_perception_encoder", 16, 32, pool="map", proj=None),
}

UNPRUNABLE = {
    "CLIPA (mean of patches)": lambda: own(pool_type="avg", final_ln_after_pool=True),
    "timm, mean of patches": lambda: TimmModel("small_vit", 16, 32, pool="avg", proj=None),
    "ConvNeXt": lambda: TimmModel("small_convnext", 16, 32, pool="avg", proj=None),
    "Swin": lambda: TimmModel("small_swin", 16, 32, pool="avg", proj=None),
}
"""Families that run without a policy only."""


def with_weights(module, gain):
    """The module with random weights: a layer's output is `gain` times as large as its input."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(False)
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif "embed" in name or "latent" in name or "token" in name:
            parameter.copy_(0.5 * torch.randn_like(parameter))
        else:
            parameter.copy_(torch.randn_like(parameter) * gain / parameter[0].numel() ** 0.5)
    return module


def features_of(tower, images):
    """The features of images, from any tower."""
    output = tower(images)
    return output[0] if isinstance(output, tuple) else output


def counted_gmacs(tower, policy, size):
    detach = attach(tower, policy)
    # the counter misses the fused multi-head kernel and, in older versions of torch, the CPU's fused attention
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            tower(torch.zeros(1, 3, size, size))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
        detach()
    return counter.get_total_flops() / 2 / 1e9
