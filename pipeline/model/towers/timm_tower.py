"""timm's VisionTransformer and EVA behind open_clip: SigLIP and SigLIP 2, MobileCLIP-B, EVA-CLIP, Perception Encoder.

Home of `timm`. Kept patch tokens keep their rotary positions.
"""

from collections.abc import Sequence

import torch
from open_clip.timm_model import TimmModel
from timm.layers import GELU, AttentionPoolLatent, GELUTanh, Mlp, apply_rot_embed_cat
from timm.layers.activations import QuickGELU
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from pipeline.model.towers import onednn
from pipeline.model.towers.parts import Activation, BlockParts, Linear, activation_of
from pipeline.model.towers.tower import Tower

_ACTIVATIONS: dict[type[nn.Module], Activation] = {GELU: "none", GELUTanh: "tanh", QuickGELU: "quick"}
"""timm's own classes; SigLIP 2 has some."""


class TimmTower(Tower):
    """A view of open_clip's TimmModel around one of timm's plain Vision Transformers."""

    def __init__(self, module: TimmModel) -> None:
        """View `module`."""
        self.module = module
        self.stem = module.trunk.patch_embed
        self.blocks = module.trunk.blocks
        self.pool = module.trunk.attn_pool
        self.grid = module.trunk.patch_embed.grid_size
        self.num_prefix = module.trunk.num_prefix_tokens
        self.image_size = module.trunk.patch_embed.img_size
        self.width = module.trunk.embed_dim
        self.num_heads = self.blocks[0].attn.num_heads
        self.head_width = self.blocks[0].attn.head_dim

    @staticmethod
    def foreign_reason(module: TimmModel) -> str | None:
        """Why this view does not know the blocks of a tower; None if it does."""
        trunk = module.trunk
        if not isinstance(trunk, VisionTransformer | Eva):
            return f"timm's {type(trunk).__name__} is not a plain Vision Transformer: later stages need the whole grid"
        if type(trunk.blocks[0]) not in (Block, EvaBlock, EvaBlockPostNorm):
            return f"blocks of type {type(trunk.blocks[0]).__name__} are not supported"
        if type(trunk.blocks[0].attn) not in (Attention, AttentionRope, EvaAttention):
            return f"attention of type {type(trunk.blocks[0].attn).__name__} is not supported"
        if getattr(trunk.blocks[0].attn, "num_kv_groups", 1) > 1:
            return "several queries share a key"
        return None

    @staticmethod
    def unprunable_reason(module: TimmModel) -> str | None:
        """Why this tower cannot be pruned, though its blocks are known; None if it can."""
        trunk = module.trunk
        pool = trunk.attn_pool
        if pool is not None and (type(pool) is not AttentionPoolLatent or pool.pos_embed is not None):
            return f"pooling by {type(pool).__name__} needs the whole grid"
        if pool is None and trunk.global_pool != "token":
            return f"it pools by {trunk.global_pool or 'its patch tokens'}, which a cut would bias"
        return None

    @property
    def reads_class_token_only(self) -> bool:
        """Whether only the class token is read after the last block."""
        return self.pool is None

    def first_norm(self, block: nn.Module, x_BTD: Tensor) -> Tensor:
        """The input of the block's attention, from the tokens that enter the block."""
        return x_BTD if isinstance(block, EvaBlockPostNorm) else block.norm1(x_BTD)

    def heads(self, block: nn.Module, normed_BTD: Tensor, parts: str) -> list[Tensor]:
        """The queries, keys or values named by `parts`, [B, H, T, E] each, not yet rotated."""
        attention, first, last = block.attn, "qkv".index(parts[0]), "qkv".index(parts[-1]) + 1
        if attention.qkv is None:
            projections = [attention.q_proj, attention.k_proj, attention.v_proj][first:last]
            return self._normed_heads(block, [projection(normed_BTD) for projection in projections], parts)
        width = attention.qkv.out_features // 3
        rows = slice(first * width, last * width)
        joint_BTF = onednn.linear(normed_BTD, attention.qkv.weight, _qkv_bias(attention), rows, kernels=self.kernels)
        return self.split_heads(block, joint_BTF, parts)

    def split_heads(self, block: nn.Module, joint_BTF: Tensor, parts: str) -> list[Tensor]:
        """What `heads` makes of the projected tokens, [B, T, F]: separate heads, normed where the block norms them."""
        return self._normed_heads(block, joint_BTF.chunk(len(parts), -1), parts)

    def _normed_heads(self, block: nn.Module, projected: Sequence[Tensor], parts: str) -> list[Tensor]:
        norms = {"q": block.attn.q_norm, "k": block.attn.k_norm, "v": nn.Identity()}
        heads = [part.unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in projected]
        return [norms[name](part) for name, part in zip(parts, heads, strict=True)]

    def qkv(self, block: nn.Module) -> Linear:
        """The weights that project the normed tokens of any block to queries, keys and values, side by side."""
        attention = block.attn
        if attention.qkv is not None:
            return Linear(weight_NK=attention.qkv.weight, bias_N=_qkv_bias(attention))
        layers = [attention.q_proj, attention.k_proj, attention.v_proj]
        biases = [one.weight.new_zeros(len(one.weight)) if one.bias is None else one.bias for one in layers]
        return Linear(weight_NK=torch.cat([one.weight for one in layers]), bias_N=torch.cat(biases))

    def other_linears(self, block: nn.Module) -> list[nn.Linear]:
        """The linear layers of a block apart from `qkv`; `finish` calls them."""
        projections = [getattr(block.attn, name, None) for name in ("qkv", "q_proj", "k_proj", "v_proj")]
        return [module for module in super().other_linears(block) if module not in projections]

    def parts(self, block: nn.Module) -> BlockParts | None:
        """The weights of a block, for kernels that compute it themselves; None if it is not a plain pre-norm block."""
        attention, mlp = block.attn, block.mlp
        is_plain = type(block) in (Block, EvaBlock) and type(mlp) is Mlp and type(mlp.fc1) is nn.Linear
        if not is_plain or getattr(attention, "gate", None) is not None:
            return None
        activation = _ACTIVATIONS.get(type(mlp.act)) or activation_of(mlp.act)
        inner = (attention.norm, mlp.norm)
        if activation is None or not all(isinstance(norm, nn.Identity) for norm in inner):
            return None
        if not all(isinstance(norm, nn.LayerNorm) for norm in (block.norm1, block.norm2)):
            return None
        return BlockParts(
            norm1=block.norm1,
            qkv=self.qkv(block),
            proj=Linear.of(attention.proj).scaled(_layer_scale(block, 1)),
            norm2=block.norm2,
            fc1=Linear.of(mlp.fc1),
            activation=activation,
            fc2=Linear.of(mlp.fc2).scaled(_layer_scale(block, 2)),
        )

    def key_weight(self, block: nn.Module) -> Tensor | None:
        """The weight [H, E, D] that maps normed tokens to keys; None if keys are normed or rotated."""
        attention = block.attn
        if not isinstance(attention.k_norm, nn.Identity) or getattr(self.module.trunk, "rope", None) is not None:
            return None
        weight = attention.k_proj.weight if attention.qkv is None else attention.qkv.weight.chunk(3)[1]
        return weight.unflatten(0, (self.num_heads, -1))

    def rotate(self, block: nn.Module, heads_BHTE: Tensor, rope: Tensor | None) -> Tensor:
        """Rotate queries or keys by their positions, except those of the prefix tokens."""
        if rope is None:
            return heads_BHTE
        prefix, half = self.num_prefix, getattr(block.attn, "rotate_half", False)
        turned = apply_rot_embed_cat(heads_BHTE[:, :, prefix:], rope, half=half).type_as(heads_BHTE)
        return torch.cat([heads_BHTE[:, :, :prefix], turned], dim=2)

    def finish(self, block: nn.Module, x_BTD: Tensor, normed_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """The rest of a block after attention."""
        attention = block.attn
        mixed_BTD = attention.norm(mixed_BHTE.transpose(1, 2).flatten(2))
        gate = getattr(attention, "gate", None)
        if gate is not None:
            mixed_BTD = mixed_BTD * gate(normed_BTD).sigmoid()
        mixed_BTD = attention.proj(mixed_BTD)
        if isinstance(block, EvaBlockPostNorm):
            x_BTD = x_BTD + block.norm1(mixed_BTD)
            return x_BTD + block.norm2(block.mlp(x_BTD))
        x_BTD = x_BTD + _scaled(block, 1, mixed_BTD)
        return x_BTD + _scaled(block, 2, block.mlp(block.norm2(x_BTD)))

    def gelu_after_linear(self, block: nn.Module) -> tuple[nn.Linear, nn.GELU] | None:
        """The first layer of the block's MLP and the GELU right after it; None if there is no such pair."""
        mlp = block.mlp
        is_plain = type(mlp) is Mlp and type(mlp.fc1) is nn.Linear and type(mlp.act) is nn.GELU
        return (mlp.fc1, mlp.act) if is_plain else None

    def head(self, x_BTD: Tensor) -> Tensor:
        """Pool the output of the last block into features."""
        trunk = self.module.trunk
        if self.pool is None:
            return self.module.head(trunk.forward_head(trunk.norm(x_BTD)))
        pools_prefix = getattr(trunk, "pool_include_prefix", True)
        return self._pooled(x_BTD if pools_prefix else x_BTD[:, self.num_prefix :])

    def reader_logits(self, block: nn.Module, x_BTD: Tensor, rope: Tensor | None) -> Tensor:
        """Attention logits of the reader of the image: the class token, or the queries of the attention pool."""
        pool = self.pool
        if pool is None:
            return super().reader_logits(block, x_BTD, rope)
        key_BHTE, _ = self._pool_keys_values(x_BTD)
        query = pool.q_norm(pool.q(pool.latent).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)) * pool.scale
        return (query @ key_BHTE.transpose(2, 3)).flatten(1, 2).float()

    def reader_values(self, block: nn.Module, x_BTD: Tensor) -> Tensor:
        """The value that the reader would take from each token: [B, H, T, E]."""
        if self.pool is None:
            return super().reader_values(block, x_BTD)
        return self._pool_keys_values(x_BTD)[1]

    def feature_of_each(self, x_BTD: Tensor) -> Tensor:
        """The features computed from each token on its own: [B, T, embedding]."""
        if self.pool is None:
            return super().feature_of_each(x_BTD)
        return self._pooled(x_BTD.flatten(0, 1).unsqueeze(1)).unflatten(0, x_BTD.shape[:2])

    def pool_with_sizes(self, x_BTD: Tensor, log_sizes_BT: Tensor) -> Tensor:
        """The attention pool, with each token counted s times; some pools skip the prefix."""
        mask = log_sizes_BT[:, None, None, -x_BTD.shape[1] :].to(x_BTD.dtype)
        return type(self.pool).forward(self.pool, x_BTD, attn_mask=mask)

    def _pooled(self, x_BTD: Tensor) -> Tensor:
        trunk = self.module.trunk
        # call the class's own forward, not a replaced one: scores need it before there are sizes
        pooled = type(self.pool).forward(self.pool, trunk.norm(x_BTD))
        return self.module.head(trunk.head(trunk.fc_norm(pooled)))

    def _pool_keys_values(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        normed_BTD = self.module.trunk.norm(x_BTD)
        key, value = self.pool.kv(normed_BTD).unflatten(-1, (2, self.pool.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.pool.k_norm(key), value


def _qkv_bias(attention: nn.Module) -> Tensor | None:
    if getattr(attention, "q_bias", None) is None:
        return attention.qkv.bias
    return torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])


def _layer_scale(block: nn.Module, number: int) -> Tensor | None:
    if isinstance(block, Block):
        return getattr(getattr(block, f"ls{number}"), "gamma", None)
    return getattr(block, f"gamma_{number}")


def _scaled(block: nn.Module, number: int, x_BTD: Tensor) -> Tensor:
    gamma = _layer_scale(block, number)
    return x_BTD if gamma is None else gamma * x_BTD
