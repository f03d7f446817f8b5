"""The text tower of a CLIP in numpy: pre-norm blocks with causal attention, read at the token that ends the text.

It computes what open_clip computes, up to rounding. `kept` compares the two before it is used. Importing torch takes
longer than everything else that a search does.

Shapes: B texts, T tokens, D width, H heads, E embedding.
"""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

from pipeline.model.text_tower.shape import TextShape

_EPSILON = np.float32(1e-5)
_QUICK_GELU = np.float32(1.702)
_END_OF_NORMAL = 8.0
"""Beyond it the normal distribution function is 0 or 1 in float32."""

_STEPS = 1 << 15
_TOKENS_ALONE = 8
"""A text alone is padded to a multiple of this: the product of 16 tokens takes less time than that of 14."""


class PlainTower:
    """A text tower. Holds no state beyond its weights, so threads can share it."""

    def __init__(self, weights: Mapping[str, np.ndarray], shape: TextShape) -> None:
        """Use these weights.

        Args:
            weights: float32, by their names in open_clip's `CLIP`.
            shape: What the weights do not say.

        Raises:
            KeyError: If a weight is missing.
        """
        self.shape = shape
        self._embedding_VD, self._positions_TD = weights["token_embedding.weight"], weights["positional_embedding"]
        self._final_norm = weights["ln_final.weight"], weights["ln_final.bias"]
        self._projection_DE = weights["text_projection"]
        self._blocks = [_Block(weights, f"transformer.resblocks.{n}.", shape) for n in range(shape.layers)]

    def __call__(self, tokens_BT: np.ndarray) -> np.ndarray:
        """Map token ids [B, context length] to features [B, E], not normalised."""
        ends_B = tokens_BT.argmax(axis=1)  # the token that ends a text has the highest id
        if not self.shape.no_causal_mask:  # no token sees those after it, so what follows the last end is never read
            length = int(ends_B.max()) + 1
            if len(tokens_BT) == 1:
                length = -(-length // _TOKENS_ALONE) * _TOKENS_ALONE
            tokens_BT = tokens_BT[:, :length]
        length = tokens_BT.shape[1]
        x_BTD = self._embedding_VD[tokens_BT] + self._positions_TD[:length]
        mask_TT = None
        if not self.shape.no_causal_mask:
            mask_TT = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        for block in self._blocks:
            x_BTD = block(x_BTD, mask_TT)
        return _norm(x_BTD[np.arange(len(tokens_BT)), ends_B], *self._final_norm) @ self._projection_DE


class _Block:
    def __init__(self, weights: Mapping[str, np.ndarray], prefix: str, shape: TextShape) -> None:
        def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
            return weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"]

        self._num_heads = shape.heads
        self._gelu = _quick_gelu if shape.quick_gelu else _gelu
        self._norm_1, self._norm_2 = pair("ln_1"), pair("ln_2")
        self._joint = weights[f"{prefix}attn.in_proj_weight"], weights[f"{prefix}attn.in_proj_bias"]
        self._out, self._first, self._second = pair("attn.out_proj"), pair("mlp.c_fc"), pair("mlp.c_proj")

    def __call__(self, x_BTD: np.ndarray, mask_TT: np.ndarray | None) -> np.ndarray:
        x_BTD = x_BTD + _linear(self._attend(_norm(x_BTD, *self._norm_1), mask_TT), *self._out)
        return x_BTD + _linear(self._gelu(_linear(_norm(x_BTD, *self._norm_2), *self._first)), *self._second)

    def _attend(self, normed_BTD: np.ndarray, mask_TT: np.ndarray | None) -> np.ndarray:
        batch, length, width = normed_BTD.shape
        joint = _linear(normed_BTD, *self._joint).reshape(batch, length, 3, self._num_heads, -1)
        query_BHTE, key_BHTE, value_BHTE = joint.transpose(2, 0, 3, 1, 4)
        logits_BHTT = (query_BHTE * np.float32(query_BHTE.shape[-1] ** -0.5)) @ key_BHTE.swapaxes(-1, -2)
        if mask_TT is not None:
            logits_BHTT += mask_TT
        logits_BHTT -= logits_BHTT.max(axis=-1, keepdims=True)
        weights_BHTT = np.exp(logits_BHTT, out=logits_BHTT)
        weights_BHTT /= weights_BHTT.sum(axis=-1, keepdims=True)
        return (weights_BHTT @ value_BHTE).swapaxes(1, 2).reshape(batch, length, width)


def _linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    flat_DN = weight @ x.reshape(-1, x.shape[-1]).T  # of few tokens, faster than x @ weight.T, which packs the weight
    flat = flat_DN.T
    flat += bias
    return flat.reshape(*x.shape[:-1], -1)


def _norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...d,...d->...", x, x)[..., None] / np.float32(x.shape[-1])
    x /= np.sqrt(variance + _EPSILON)
    x *= weight
    x += bias
    return x


def _quick_gelu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of a large number is inf, and x / inf is 0, as it should be
        return x / (1 + np.exp(-_QUICK_GELU * x))


def _gelu(x: np.ndarray) -> np.ndarray:
    """The exact GELU, x times the normal distribution function, which is interpolated to 1e-9."""
    values, differences = _normal_distribution()
    place = np.clip(x, -_END_OF_NORMAL, _END_OF_NORMAL)
    place += np.float32(_END_OF_NORMAL)
    place *= np.float32(_STEPS / (2 * _END_OF_NORMAL))
    step = place.astype(np.int32)
    place -= step
    place *= differences[step]
    place += values[step]
    place *= x
    return place


@cache
def _normal_distribution() -> tuple[np.ndarray, np.ndarray]:
    """The normal distribution function at equal steps, and its difference to the next step. numpy has no erf."""
    places = np.linspace(-_END_OF_NORMAL, _END_OF_NORMAL, _STEPS + 1).tolist()
    values = np.array([0.5 * math.erfc(-place / math.sqrt(2)) for place in places])
    values[0] = 0  # also for all values before it
    return values.astype(np.float32), np.diff(values, append=values[-1]).astype(np.float32)
