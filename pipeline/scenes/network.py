"""The network of the built-in `scenes` model, as trained by its recipe.

The two towers are open_clip's, run with compact token ids and an attention that trains fast on a CPU. Two linear
classifiers exist during training only: one reads the size, colour and shape at every place, and the background, from
the image embedding and from the caption embedding; the other reads the attributes from each patch token. They shorten
the training, and are not part of the written model.
"""

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.model.adapter import losses
from pipeline.scenes import collection

IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.25, 0.25, 0.25)
ATTRIBUTES = (("size", collection.SIZES), ("colour", tuple(collection.COLOURS)), ("shape", collection.SHAPES))
# Each attribute has an extra first class: no object at this place.
CLASS_COUNTS = [1 + len(values) for _, values in ATTRIBUTES]
BACKGROUND_COUNTS = [len(collection.TEXTURES), len(collection.TINTS)]


def model_config() -> dict:
    """Return the content of `open_clip_config.json`."""
    return {
        "model_cfg": {
            "embed_dim": 192,
            "vision_cfg": {
                "image_size": 96,
                "patch_size": 8,
                "layers": 8,
                "width": 128,
                "head_width": 32,
                "mlp_ratio": 4.0,
            },
            "text_cfg": {
                "context_length": 48,
                "vocab_size": 49408,
                "layers": 3,
                "width": 128,
                "heads": 4,
                "mlp_ratio": 4.0,
            },
        },
        "preprocess_cfg": {"mean": list(IMAGE_MEAN), "std": list(IMAGE_STD)},
    }


def scene_labels(scene: collection.Scene) -> np.ndarray:
    """Return the classes of a scene, int64 [places * attributes + 2]."""
    places = np.zeros((len(collection.PLACES), len(ATTRIBUTES)), np.int64)
    for item in scene.objects:
        for column, (name, values) in enumerate(ATTRIBUTES):
            row = collection.PLACES.index(item.place)
            places[row, column] = 1 + values.index(getattr(item, name))
    background = [collection.TEXTURES.index(scene.texture), list(collection.TINTS).index(scene.tint)]
    return np.concatenate([places.ravel(), background])


def build_model(config: dict, vocab_size: int) -> open_clip.CLIP:
    """Build the untrained model with a token table of `vocab_size` rows."""
    settings = config["model_cfg"]
    text = {**settings["text_cfg"], "vocab_size": vocab_size}
    return open_clip.CLIP(settings["embed_dim"], settings["vision_cfg"], text)


def run_blocks(blocks: nn.ModuleList, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Apply residual attention blocks to tokens [batch, tokens, width].

    Computes the same function as the blocks' own `forward`. The attention is written out because the backward pass of
    PyTorch's fused attention takes four times as long at these sizes, in bfloat16 on a CPU.
    """
    for block in blocks:
        attention = block.attn
        batch, tokens, width = x.shape
        qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        heads = qkv.view(batch, tokens, 3, attention.num_heads, attention.head_dim)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        scores = (query * attention.head_dim**-0.5) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        mixed = scores.softmax(-1) @ value
        x = x + attention.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        x = x + block.mlp(block.ln_2(x))
    return x


def encode_pictures(model: open_clip.CLIP, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Encode uint8 pictures [batch, 3, size, size].

    Returns:
        Embeddings [batch, embed] without normalization, and patch tokens [batch, patches, width].
    """
    mean = torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(3, 1, 1)
    visual = model.visual
    x = visual._embeds((pictures / 255 - mean) / std)
    x = visual.ln_post(run_blocks(visual.transformer.resblocks, x))
    return x[:, 0] @ visual.proj, x[:, 1:]


def encode_captions(model: open_clip.CLIP, ids: Tensor) -> Tensor:
    """Encode compact token ids [batch, context] to embeddings [batch, embed]."""
    x = model.token_embedding(ids) + model.positional_embedding
    x = run_blocks(model.transformer.resblocks, x, model.attn_mask)
    # The end token has the largest id, among the compact ids too.
    pooled = model.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)]
    return pooled @ model.text_projection


class SceneClassifiers(nn.Module):
    """The linear classifiers that exist during training only."""

    def __init__(self, embed_dim: int, width: int, grid_size: int) -> None:
        super().__init__()
        places = len(collection.PLACES)
        self.embedding = nn.Linear(embed_dim, places * sum(CLASS_COUNTS) + sum(BACKGROUND_COUNTS))
        self.patch = nn.Linear(width, sum(CLASS_COUNTS))
        cell = torch.arange(grid_size) * collection.GRID // grid_size
        place_of_patch = (cell[:, None] * collection.GRID + cell[None, :]).flatten()
        self.register_buffer("place_of_patch", place_of_patch)

    def embedding_loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of classifying every place and the background from embeddings [batch, embed]."""
        logits = self.embedding(embeddings).float()
        size = sum(BACKGROUND_COUNTS)
        places = logits[:, :-size].unflatten(1, (len(collection.PLACES), -1))
        loss = place_loss(places, labels[:, :-2].unflatten(1, (len(collection.PLACES), -1)))
        parts = logits[:, -size:].split(BACKGROUND_COUNTS, dim=1)
        return loss + sum(F.cross_entropy(p, labels[:, i - 2]) for i, p in enumerate(parts)) / 4

    def patch_loss(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """The loss of classifying the place of each patch from tokens [batch, patches, width]."""
        places = labels[:, :-2].unflatten(1, (len(collection.PLACES), -1))
        return place_loss(self.patch(tokens).float(), places[:, self.place_of_patch])


def place_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross entropy of the attributes.

    Args:
        logits: [batch, positions, sum of `CLASS_COUNTS`].
        labels: Classes [batch, positions, attributes], 0 for no object.
    """
    parts = logits.flatten(0, 1).split(CLASS_COUNTS, dim=1)
    return sum(F.cross_entropy(p, labels[..., i].flatten()) for i, p in enumerate(parts))


def contrastive_loss(images: Tensor, captions: Tensor, logit_scale: Tensor) -> Tensor:
    """The symmetric loss of CLIP on embeddings [batch, embed]."""
    images, captions = F.normalize(images.float(), dim=-1), F.normalize(captions.float(), dim=-1)
    logits = logit_scale.exp() * images @ captions.T
    return losses.contrastive_loss(logits)
