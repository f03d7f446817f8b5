"""The unpruned model: embeds what the student sees, and gives the target embeddings of the held-out images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel
from pipeline.model.pruning.policy import named_policy
from pipeline.training.examples import Batch, Decoder, Examples

_BATCH = 64


class Teacher:
    """The model as loaded, with the policy `lossless`: the same as unpruned up to rounding, and faster."""

    logit_scale: float
    """The factor by which the model multiplies similarities."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Share the weights of `loaded`, which a student may use too."""
        self._encoder = Encoder(sharing_weights(loaded), named_policy("lossless"))
        self._tokenize = loaded.tokenize
        self.logit_scale = float(loaded.clip.logit_scale.detach().exp())

    def embed(self, pixels_BHWC: np.ndarray) -> Tensor:
        """Unit embeddings [B, E] of images, on the CPU."""
        return torch.from_numpy(self._encoder.encode(pixels_BHWC))

    def embed_captions(self, examples: Examples) -> "Captions":
        """Tokenize and embed every caption of the examples."""
        texts = [text for captions in examples.captions for text in captions]
        counts = [len(captions) for captions in examples.captions]
        return Captions(
            tokens_MT=self._tokenize(texts),
            vectors_ME=torch.from_numpy(self._encoder.encode_texts(texts)),
            first_N=np.cumsum([0, *counts[:-1]]),
            counts_N=np.array(counts),
        )


@dataclass(frozen=True, slots=True)
class Captions:
    """M captions of N images, in the order of the images, with unit embeddings."""

    tokens_MT: Tensor
    vectors_ME: Tensor
    first_N: np.ndarray
    """Row of each image's first caption."""

    counts_N: np.ndarray

    def of(self, batch: Batch) -> Tensor:
        """Rows of the captions used for a batch: int64 [B]."""
        return torch.from_numpy(self.first_N[batch.rows_B] + batch.captions_B)

    def of_all(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """`(rows, labels)` of all captions of the given images; a label is the image's index in `rows`."""
        spans = [np.arange(self.first_N[row], self.first_N[row] + self.counts_N[row]) for row in rows]
        return torch.from_numpy(np.concatenate(spans)), np.repeat(np.arange(len(rows)), self.counts_N[rows])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Validation images: uint8 [N, H, W, 3], the teacher's unit embeddings, their rows in the examples."""

    pixels_NHWC: np.ndarray
    taught_NE: np.ndarray
    rows_N: np.ndarray


def held_out_images(teacher: Teacher, examples: Examples, decoder: Decoder) -> HeldOut:
    """Decode the validation images, and embed them with the teacher.

    Raises:
        InputError: If fewer than two can be decoded.
    """
    rows_N, decoded, taught = examples.held_out, [], []
    batches = (Batch(rows_N[first : first + _BATCH]) for first in range(0, len(rows_N), _BATCH))
    for batch in decoder.ahead(batches):
        decoded.append(batch)
        taught.append(teacher.embed(batch.pixels).numpy())
    is_ok_N = np.concatenate([batch.is_ok_B for batch in decoded])
    if is_ok_N.sum() < 2:
        bad = next(failed for batch in decoded if (failed := batch.first_failed()))
        raise InputError(
            f"only {is_ok_N.sum()} of {len(is_ok_N)} held-out images can be decoded ({bad.key}: {bad.error}); "
            "fix the data"
        )
    pixels_NHWC = np.concatenate([batch.pixels for batch in decoded])
    return HeldOut(pixels_NHWC[is_ok_N], np.concatenate(taught)[is_ok_N], rows_N[is_ok_N])
