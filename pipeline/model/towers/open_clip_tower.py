"""open_clip's own VisionTransformer: optional ln_pre, query-key norms, norm-former scales, CoCa's pooling."""

from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from pipeline.model.towers import onednn
from pipeline.model.towers.parts import BlockParts, Linear, activation_of
from pipeline.model.towers.tower import Tower


class OpenClipTower(Tower):
    """A view of open_clip's VisionTransformer."""

    num_prefix = 1

    def __init__(self, module: VisionTransformer) -> None:
        """View `module`."""
        self.module = module
        self.stem = module.conv1
        self.blocks = module.transformer.resblocks
        self.pool = module.attn_pool
        self.grid = module.grid_size
        self.image_size = module.image_size
        self.width = module.conv1.out_channels
        self.num_heads = self.blocks[0].attn.num_heads
        self.head_width = self.width // self.num_heads

    @staticmethod
    def foreign_reason(module: VisionTransformer) -> str | None:
        """Why this view does not know the blocks of a tower; None if it does."""
        if getattr(module.transformer.resblocks[0].attn, "logit_scale", None) is not None:
            return "it uses scaled cosine attention"
        return None

    @staticmethod
    def unprunable_reason(module: VisionTransformer) -> str | None:
        """Why this tower cannot be pruned, though its blocks are known; None if it can."""
        if module.attn_pool is None and module.pool_type == "avg":
            return "it pools by the mean of its patch tokens, which a cut would bias"
        if getattr(module, "attn_pool_contrastive", None) is not None:
            return "it has two attention pools"
        return None

    @property
    def reads_class_token_only(self) -> bool:
        """Whether only the class token is read after the last block."""
        return self.module.attn_pool is None and self.module.pool_type == "tok" and not self.module.output_tokens

    def first_norm(self, block: nn.Module, x_BTD: Tensor) -> Tensor:
        """The input of the block's attention, from the tokens that enter the block."""
        return block.ln_1(x_BTD)

    def heads(self, block: nn.Module, normed_BTD: Tensor, parts: str) -> list[Tensor]:
        """The queries, keys or values named by `parts`, [B, H, T, E] each."""
        attention, first, last = block.attn, "qkv".index(parts[0]), "qkv".index(parts[-1]) + 1
        width = attention.in_proj_weight.shape[0] // 3
        rows = slice(first * width, last * width)
        joint_BTF = onednn.linear(
            normed_BTD, attention.in_proj_weight, attention.in_proj_bias, rows, kernels=self.kernels
        )
        return self.split_heads(block, joint_BTF, parts)

    def split_heads(self, block: nn.Module, joint_BTF: Tensor, parts: str) -> list[Tensor]:
        """What `heads` makes of the projected tokens, [B, T, F]: separate heads, normed where the block norms them."""
        heads = [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in joint_BTF.chunk(len(parts), -1)]
        norms = [getattr(block.attn, f"ln_{name}", nn.Identity()) for name in parts]
        return [norm(part) for part, norm in zip(heads, norms, strict=True)]

    def qkv(self, block: nn.Module) -> Linear:
        """The weights that project the normed tokens of any block to queries, keys and values, side by side."""
        return Linear(weight_NK=block.attn.in_proj_weight, bias_N=block.attn.in_proj_bias)

    def parts(self, block: nn.Module) -> BlockParts | None:
        """The weights of a block, for kernels that compute it themselves; None if it is not a plain pre-norm block."""
        first, act, *rest = block.mlp
        activation = activation_of(act)
        is_plain = type(block) is ResidualAttentionBlock and type(block.attn) is nn.MultiheadAttention
        if not (is_plain and activation and len(rest) == 1 and isinstance(block.ln_1, nn.LayerNorm)):
            return None
        scale1, scale2 = (getattr(scale, "gamma", None) for scale in (block.ls_1, block.ls_2))
        return BlockParts(
            norm1=block.ln_1,
            qkv=self.qkv(block),
            proj=Linear.of(block.attn.out_proj).scaled(scale1),
            norm2=block.ln_2,
            fc1=Linear.of(first),
            activation=activation,
            fc2=Linear.of(rest[0]).scaled(scale2),
        )

    def key_weight(self, block: nn.Module) -> Tensor | None:
        """The weight [H, E, D] that maps normed tokens to keys; None if keys are normed."""
        if not isinstance(getattr(block.attn, "ln_k", nn.Identity()), nn.Identity):
            return None
        return block.attn.in_proj_weight.chunk(3)[1].unflatten(0, (self.num_heads, -1))

    def finish(self, block: nn.Module, x_BTD: Tensor, normed_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """The rest of a block after attention."""
        attention = block.attn
        if getattr(attention, "head_scale", None) is not None:
            mixed_BHTE = mixed_BHTE * attention.head_scale
        mixed_BTD = mixed_BHTE.transpose(1, 2).flatten(2)
        if isinstance(block, CustomResidualAttentionBlock):
            mixed_BTD = block.ln_attn(attention.out_proj(attention.ln_inner(mixed_BTD)))
        else:
            mixed_BTD = attention.out_proj(mixed_BTD)
        x_BTD = x_BTD + block.ls_1(mixed_BTD)
        return x_BTD + block.ls_2(block.mlp(block.ln_2(x_BTD)))

    def gelu_after_linear(self, block: nn.Module) -> tuple[nn.Linear, nn.GELU] | None:
        """The first layer of the block's MLP and the GELU right after it; None if there is no such pair."""
        first, second, *_ = block.mlp
        return (first, second) if type(first) is nn.Linear and type(second) is nn.GELU else None

    def head(self, x_BTD: Tensor) -> Tensor:
        """Pool the output of the last block into features."""
        if self.pool is None:
            pooled_BD, _ = self.module._pool(x_BTD)
        else:  # call the class's own forward, not a replaced one: scores need it before there are sizes
            pooled_BD, _ = self.module._global_pool(self.module.ln_post(type(self.pool).forward(self.pool, x_BTD)))
        return pooled_BD if self.module.proj is None else pooled_BD @ self.module.proj

    def pool_with_sizes(self, x_BTD: Tensor, log_sizes_BT: Tensor) -> Tensor:
        """CoCa's attentional pool, with each token counted s times."""
        pool = self.module.attn_pool
        num_images, num_queries = x_BTD.shape[0], pool.query.shape[0]
        query = pool.ln_q(pool.query).expand(num_images, -1, -1)
        x_BTD = pool.ln_k(x_BTD)
        mask = log_sizes_BT.to(x_BTD.dtype).repeat_interleave(pool.attn.num_heads, dim=0)
        mask = mask.unsqueeze(1).expand(-1, num_queries, -1)
        return pool.attn(query, x_BTD, x_BTD, need_weights=False, attn_mask=mask)[0]
