"""Settings of `clipsieve adapt`."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import AliasChoices, Field, model_validator

from pipeline.model.adapter.config import TARGETS, Factors, Variant
from pipeline.model.spec import EMBEDDED, DeviceChoice
from pipeline.settings.load import OutputSettings
from pipeline.settings.model import PolicySettings


class AdaptSettings(PolicySettings, OutputSettings):
    """Train a low-rank adapter that recovers the recall lost to pruning, or export one to an open_clip model."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("data", "captions", "label_free", "out", "export", "adapter"),
        "how good": (
            *("variant", "factors", "targets", "rank", "alpha", "costs", "crop_area", "steps"),
            *("learning_rate", "weight_decay", "feature_weight", "similarity_weight"),
            *("contrastive_weight", "task_weight", "patience", "seed", "precision"),
        ),
        "how fast": ("device", "batch_size"),
        "watching": ("held_out", "evaluate_every"),
    }

    OUTPUTS: ClassVar[dict[str, str]] = {"export": "folder"}  # `out` may be a finished adapter, which is only read

    data: Path | None = None
    """Folder of images to train on. The built-in model `scenes` needs none: its scenes are drawn."""

    captions: Path | None = None
    """TSV of `key TAB caption`. Images without captions are left out."""

    label_free: bool = False
    """Train on images alone: update only the image tower, so that its pruned embeddings match the unpruned ones."""

    out: Path | None = None
    """Adapter to write, or to resume."""

    export: Path | None = None
    """Directory for the model with the adapter merged in; open_clip loads it as `local-dir:`."""

    adapter: str | None = Field(default=None, validation_alias=AliasChoices("from", "adapter"))
    """Finished adapter to export. Nothing is trained."""

    variant: Variant | None = None
    """What the towers share: shared (cores), shared+head (also a basis of the output projections), independent
    (nothing), or image-only (only the image tower is updated). By default, shared; with --label-free, image-only."""

    factors: Factors = "free"
    """How updates are factored: free learns A and B; singular fixes them to the weights' singular vectors, and learns
    cores and a diagonal."""

    targets: str = "q,k,v,o,mlp"
    """Matrices of each block to update, separated by commas: any of q, k, v, o and mlp."""

    rank: int = Field(default=16, ge=1)
    """Rank of every update."""

    alpha: float = Field(default=2.0, gt=0.0)
    """Updates are scaled by alpha / sqrt(rank)."""

    costs: str = "1,1.25,1.5,2,2.5"
    """How many times fewer multiply-adds to train for. Half of the steps draw one of these; the other half use the
    policy as it is."""

    crop_area: float = Field(default=0.5, gt=0.0, le=1.0)
    """Smallest share of an image's area that a random crop keeps; 1 keeps whole images."""

    steps: int = Field(default=1000, ge=1)
    """Number of training steps."""

    batch_size: int = Field(default=64, ge=2)
    """Images per step."""

    learning_rate: float = Field(default=2e-3, gt=0.0)
    """Peak learning rate of AdamW: warm-up over the first 5 % of steps, then cosine decay to zero."""

    weight_decay: float = Field(default=0.01, ge=0.0)
    """Weight decay of the factors A and B. Cores, diagonals and offsets do not decay."""

    feature_weight: float = Field(default=1.0, ge=0.0)
    """Loss weight of 1 - cosine to the teacher's embeddings."""

    similarity_weight: float = Field(default=1.0, ge=0.0)
    """Loss weight of the divergence from the teacher's similarities within a batch. Needs captions."""

    contrastive_weight: float = Field(default=1.0, ge=0.0)
    """Loss weight of the contrastive loss between one tower of the student and the other of the teacher. Needs
    captions."""

    task_weight: float = Field(default=0.1, ge=0.0)
    """Loss weight of the contrastive loss between the student's two towers. Needs captions."""

    held_out: int = Field(default=500, ge=4)
    """Number of images to validate on; at most a fifth of all."""

    evaluate_every: int = Field(default=100, ge=1)
    """Steps between validations. The best state is kept."""

    patience: int = Field(default=5, ge=1)
    """Number of validations without improvement before training stops early."""

    seed: int = 0
    """Seed of the factors, the order of the images and the drawn costs."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of weights and activations. auto measures whether bf16 is faster than fp32."""

    device: DeviceChoice = "auto"
    """Where to train. auto uses a GPU if there is one."""

    @model_validator(mode="after")
    def _check(self) -> "AdaptSettings":
        self.pruning_policy()
        if self.adapter:
            if self.export is None or self.out is not None:
                raise ValueError("--from ADAPTER exports a finished adapter: give --export, and leave out --out")
            return self
        if self.out is None:
            raise ValueError("out is missing; give --out, the adapter to write")
        if self.data is None and self.model != EMBEDDED:
            raise ValueError("data is missing; give --data, a folder of images")
        if self.data is not None and (self.captions is None) != self.label_free:
            raise ValueError("give either --captions, or --label-free to train on images alone")
        if self.label_free and self.variant not in (None, "image-only"):
            raise ValueError(f"variant = {self.variant!r}: label-free training uses no text; expected 'image-only'")
        if not self.target_names() or set(self.target_names()) - set(TARGETS):
            raise ValueError(f"targets = {self.targets!r}: expected any of {', '.join(TARGETS)}, separated by commas")
        self.cost_ratios()
        return self

    def target_names(self) -> list[str]:
        """The matrices to update."""
        return [name.strip() for name in self.targets.split(",") if name.strip()]

    def cost_ratios(self) -> list[float]:
        """The costs to draw from; 1 is the unpruned tower."""
        try:
            ratios = [float(text) for text in self.costs.split(",")]
        except ValueError:
            ratios = []
        if not ratios or not all(1 <= ratio < 100 for ratio in ratios):
            raise ValueError(f"costs = {self.costs!r}: expected numbers from 1 to below 100, separated by commas")
        return ratios
