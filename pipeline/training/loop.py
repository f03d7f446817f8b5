"""The loop that trains a student. Each step depends only on the seed, the step number and the state."""

import math
from collections.abc import Callable, Iterator
from itertools import tee
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ClipsieveError, InputError
from pipeline.measure.recall import KS, first_hit_ranks, neighbour_overlap, recall_at, recall_sum
from pipeline.model.adapter.losses import contrastive_loss, feature_loss, similarity_loss
from pipeline.monitor.progress import Tick
from pipeline.pixels.batch import DecodedBatch
from pipeline.settings.adapt import AdaptSettings
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.examples import Batch, Decoder, Examples
from pipeline.training.student import Student, Weights
from pipeline.training.teacher import Teacher, held_out_images

CHECKPOINT_EVERY = 50
_WARM_UP = 0.05
_BETAS = (0.9, 0.98)
_MAX_GRADIENT = 1.0
_SHARE_OF_FIRST = 0.5
_NO_DECAY = ("core", "diagonal", "summary_offsets")


class Training:
    """Trains a student from its last checkpoint to its best state."""

    log: list[dict[str, Any]]
    """One entry per validation."""

    num_failed_held_out: int
    """Number of validation images that cannot be decoded."""

    def __init__(
        self,
        *,
        settings: AdaptSettings,
        student: Student,
        teacher: Teacher,
        examples: Examples,
        decoder: Decoder,
        checkpoint: Checkpoint,
    ) -> None:
        """Resume from the checkpoint, if there is one."""
        self._settings, self._student, self._teacher = settings, student, teacher
        self._examples, self._decoder, self._checkpoint = examples, decoder, checkpoint
        self._held_out = held_out_images(teacher, examples, decoder)
        self.num_failed_held_out = examples.num_held_out - len(self._held_out.rows_N)
        self._captions = None if settings.label_free else teacher.embed_captions(examples)
        self._optimizer = _optimizer(student, settings)
        self._step, self._stale, self._best_score, self._num_failed = 0, 0, -math.inf, 0
        self._sums: dict[str, float] = {}
        self.log = []
        state = checkpoint.read()
        if state:
            self._student.load_state_dict(state["student"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._step, self._stale, self._best_score = state["step"], state["stale"], state["best_score"]
            self._sums, self.log, self._best, self._before = (state[name] for name in ("sums", "log", "best", "before"))
        else:
            self._best = self._state_of_student()
            self._before = self._validate_all()
            self._write()

    def run(
        self, on_tick: Callable[[str, Tick], None], on_entry: Callable[[dict[str, Any]], None]
    ) -> dict[str, list[dict[str, float]]]:
        """Train until the last step, or until validation stops improving; leave the student in its best state.

        Returns:
            Validation results `before` and `after` training, for each policy.

        Raises:
            ClipsieveError: If the loss is not finite; the last checkpoint stays.
        """
        settings, first, started = self._settings, self._step, perf_counter()
        for batch, decoded in self._batches():
            self._learn(*self._good_images(batch, decoded))
            self._step += 1
            rate = (self._step - first) * settings.batch_size / (perf_counter() - started)
            seen, total = self._step * settings.batch_size, settings.steps * settings.batch_size
            on_tick("training", Tick(seen, total, self._num_failed, rate))
            if self._step % settings.evaluate_every == 0 or self._step == settings.steps:
                on_entry(self._evaluate())
            if self._step % CHECKPOINT_EVERY == 0 or self._step % settings.evaluate_every == 0:
                self._write()
            if self._stale >= settings.patience:
                break
        self._student.load_state_dict(self._best)
        return {"before": self._before, "after": self._validate_all()}

    def _batches(self) -> Iterator[tuple[Batch, DecodedBatch]]:
        settings = self._settings
        if self._stale >= settings.patience:  # killed after the last step, before the adapter was written
            return
        batches, to_decode = tee(
            self._examples.batch(
                step, settings.batch_size, settings.seed, settings.crop_area, mirrors=settings.label_free
            )
            for step in range(self._step, settings.steps)
        )
        yield from zip(batches, self._decoder.ahead(to_decode), strict=True)

    def _good_images(self, batch: Batch, decoded: DecodedBatch) -> tuple[Batch, np.ndarray]:
        is_ok_B = decoded.is_ok_B
        if is_ok_B.all():
            return batch, decoded.pixels
        self._num_failed += decoded.num_failed
        if is_ok_B.sum() < 2:
            bad = decoded.first_failed()
            raise InputError(
                f"training: only {is_ok_B.sum()} of {len(is_ok_B)} images in step {self._step} can be decoded "
                f"({bad.key}: {bad.error}); fix the data, or use larger batches"
            )
        return batch.only(is_ok_B), decoded.pixels[is_ok_B]

    def _learn(self, batch: Batch, pixels_BHWC: np.ndarray) -> None:
        settings = self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(self._step, settings.steps)
        policy = _draw_policy(settings.seed, self._step, self._student.num_policies)
        losses = self._losses(batch, pixels_BHWC, policy)
        loss = sum(getattr(settings, f"{name}_weight") * value for name, value in losses.items())
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._student.trainable(), _MAX_GRADIENT)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise ClipsieveError(
                f"training: the loss is not finite at step {self._step} (the last good state is in "
                f"{self._checkpoint.path.parent}); try another --out with --learning-rate "
                f"{settings.learning_rate / 3:.2g} or --precision fp32"
            )
        self._optimizer.step()
        for name, value in {"loss": loss, **losses}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.item()
        self._sums["steps"] = self._sums.get("steps", 0) + 1

    def _losses(self, batch: Batch, pixels_BHWC: np.ndarray, policy: int) -> dict[str, Tensor]:
        student, captions, scale = self._student, self._captions, self._teacher.logit_scale
        weights = student.weights()
        images = student.encode_images(weights, pixels_BHWC, policy)
        taught_images = self._teacher.embed(pixels_BHWC).to(images.device)
        losses = {"feature": feature_loss(images, taught_images)}
        if captions is None:
            return losses
        rows = captions.of(batch)
        taught_texts = texts = captions.vectors_ME[rows].to(images.device)
        if student.updates_text:
            texts = student.encode_texts(weights, captions.tokens_MT[rows])
            losses["feature"] = losses["feature"] + feature_loss(texts, taught_texts)
        logits, taught = scale * images @ texts.T, scale * taught_images @ taught_texts.T
        losses["similarity"] = (similarity_loss(logits, taught) + similarity_loss(logits.T, taught.T)) / 2
        losses["contrastive"] = contrastive_loss(scale * images @ taught_texts.T)
        if student.updates_text:
            losses["contrastive"] = losses["contrastive"] + contrastive_loss(scale * taught_images @ texts.T)
        return losses | {"task": contrastive_loss(logits)}

    def _evaluate(self) -> dict[str, Any]:
        """Validate with the first policy, the one to be used; returns the log entry."""
        num_steps = self._sums.pop("steps")
        losses = {name: round(total / num_steps, 5) for name, total in self._sums.items()}
        self._sums = {}
        with torch.no_grad():
            measured = self._validate(self._student.weights(), 0)
        score = measured["cosine"] if self._settings.label_free else recall_sum(measured)
        if score > self._best_score:
            self._best_score, self._best, self._stale = score, self._state_of_student(), 0
        else:
            self._stale += 1
        entry = {"step": self._step, **losses, "held_out": measured}
        self.log.append(entry)
        return entry

    @torch.no_grad()
    def _validate_all(self) -> list[dict[str, float]]:
        weights = self._student.weights()
        return [self._validate(weights, policy) for policy in range(self._student.num_policies)]

    def _validate(self, weights: Weights, policy: int) -> dict[str, float]:
        """Similarity to the teacher on the held-out images, and recall if there are captions."""
        pixels, taught_NE, size = self._held_out.pixels_NHWC, self._held_out.taught_NE, 2 * self._settings.batch_size
        parts = [
            self._student.encode_images(weights, pixels[first : first + size], policy)
            for first in range(0, len(pixels), size)
        ]
        images_NE = torch.cat(parts).cpu().numpy()
        measured = {
            "cosine": float((images_NE * taught_NE).sum(axis=1).mean()),
            "overlap@10": neighbour_overlap(images_NE, taught_NE, 10),
        }
        if self._captions:
            measured |= self._recall(weights, images_NE)
        return {name: round(value, 5) for name, value in measured.items()}

    def _recall(self, weights: Weights, images_NE: np.ndarray) -> dict[str, float]:
        """Text->image recall on the held-out images, with their own captions as queries."""
        rows, labels = self._captions.of_all(self._held_out.rows_N)
        texts = self._captions.vectors_ME[rows]
        if self._student.updates_text:
            parts = self._captions.tokens_MT[rows].split(256)
            texts = torch.cat([self._student.encode_texts(weights, part) for part in parts]).cpu()
        ranks = first_hit_ranks(texts.numpy(), labels, images_NE, np.arange(len(images_NE)))
        return {f"image_retrieval_recall@{k}": recall_at(ranks, k) for k in KS}

    def _state_of_student(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self._student.state_dict().items()}

    def _write(self) -> None:
        self._checkpoint.write(
            {
                "student": self._state_of_student(),
                "optimizer": self._optimizer.state_dict(),
                "step": self._step,
                "stale": self._stale,
                "best_score": self._best_score,
                "best": self._best,
                "before": self._before,
                "sums": self._sums,
                "log": self.log,
            }
        )


def _draw_policy(seed: int, step: int, num_policies: int) -> int:
    """Pick the first policy in half of the steps, because it matters most; otherwise one of the others."""
    rng = np.random.default_rng((seed, step, 2))
    if num_policies == 1 or rng.random() < _SHARE_OF_FIRST:
        return 0
    return int(rng.integers(1, num_policies))


def _optimizer(student: Student, settings: AdaptSettings) -> torch.optim.AdamW:
    decays, others = [], []
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            is_other = any(part in name for part in _NO_DECAY)
            (others if is_other else decays).append(parameter)
    groups = [
        {"params": decays, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, betas=_BETAS)


def _schedule(step: int, num_steps: int) -> float:
    """Fraction of the peak learning rate: a linear warm-up, then a cosine decay to zero."""
    warm_up = max(1, round(_WARM_UP * num_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, num_steps - warm_up))) / 2
