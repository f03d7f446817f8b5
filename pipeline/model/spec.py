"""The encoder spec: everything that determines the value of an embedding, and its fingerprint.

This is a contract: `pipeline` writes the spec to run.json and to every Parquet file; `indexer` and `query` read it
there and take no model flags of their own. Settings that only affect speed are not part of it.
"""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.model.precision import Precision
from pipeline.model.pruning.policy import PruningPolicy

DeviceChoice = Literal["auto", "cpu", "cuda"]
DecoderName = Literal["pillow", "torchvision"]
"""Decoder for JPEGs: Pillow on the CPUs, or torchvision on the encoder's device where it gives the same pixels."""

LOCAL_DIR = "local-dir:"
EMBEDDED = "scenes"
"""Name of the built-in model and of its adapter."""


class Preprocess(BaseModel):
    """How an image becomes the tower's input. All fields except `decoder` come from open_clip's preprocessing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0
    decoder: DecoderName = "pillow"


class ModelSource(BaseModel):
    """Where the weights come from, in terms of `open_clip.create_model_and_transforms`, and which decoder to use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    pretrained: str | None = None
    random_weights: bool = False
    image_size: int | None = None
    adapter: str | None = None
    """Directory of the adapter to merge, or the name of the built-in one."""

    decoder: DecoderName = "pillow"

    def absolute(self) -> "ModelSource":
        """The same source with absolute paths, so that it stays valid later and on every worker."""
        model, pretrained, adapter = self.model, self.pretrained, self.adapter
        if model.startswith(LOCAL_DIR):
            model = f"{LOCAL_DIR}{_absolute(model.removeprefix(LOCAL_DIR))}"
        if pretrained and Path(pretrained).suffix and Path(pretrained).expanduser().is_file():  # tags have no suffix
            pretrained = _absolute(pretrained)
        if adapter and adapter != EMBEDDED:
            adapter = _absolute(adapter)
        return self.model_copy(update={"model": model, "pretrained": pretrained, "adapter": adapter})


def local_files(source: ModelSource) -> dict[str, list[int]] | None:
    """Size and mtime (ns) of the files on this machine that a model is loaded from, by path.

    They show whether the weights may have changed, without reading them. Weights that are named by a tag or by hf-hub
    have no such files: the name says which they are.

    Returns:
        None if a file or directory is not here, or cannot be read.
    """
    own = resources.files("pipeline.scenes")
    places = []
    if source.model == EMBEDDED:
        places.append(own / "weights")
    elif source.model.startswith(LOCAL_DIR):
        places.append(source.model.removeprefix(LOCAL_DIR))
    if source.pretrained and Path(source.pretrained).is_absolute():
        places.append(source.pretrained)
    if source.adapter:
        places.append(own / "adapter" if source.adapter == EMBEDDED else source.adapter)
    try:
        paths = [found for place in places for found in _files_at(Path(str(place)))]
        return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    except OSError:
        return None


def _files_at(place: Path) -> list[Path]:
    place.stat()  # raises if it is not there
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


class EncoderSpec(BaseModel):
    """The encoder that produced the embeddings of a store.

    The fingerprint has two halves: `text_space` covers everything that text vectors depend on, and `image_space`
    everything that image vectors depend on. If only `image_space` differs, text vectors are the same and image vectors
    are not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: ModelSource
    architecture: dict[str, Any]
    weights_sha256: str
    text_weights_sha256: str
    image_weights_sha256: str
    embedding_dim: int
    precision: Precision
    preprocess: Preprocess
    policy: PruningPolicy | None
    adapter: str | None = None
    """SHA-256 of the adapter merged into the towers."""

    text_adapter: str | None = None
    """SHA-256 of the adapter if it also changes the text tower; None if text vectors of the bare model stay valid."""

    calibration: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """SHA-256 of the ranges that activations are rounded in; see `pipeline.model.quantization`. Only in int8."""

    @property
    def text_space(self) -> str:
        """Hash of everything that a text vector depends on (hex)."""
        architecture = {key: value for key, value in self.architecture.items() if key != "vision_cfg"}
        return _digest([architecture, self.text_weights_sha256, self.embedding_dim, self.text_adapter])

    @property
    def image_space(self) -> str:
        """Hash of everything that an image vector depends on (hex)."""
        architecture = {key: value for key, value in self.architecture.items() if key != "text_cfg"}
        policy = self.policy.model_dump(exclude={"name"}) if self.policy else None
        # Pillow is left out, to match stores written before there was a choice
        preprocess = self.preprocess.model_dump(exclude={"decoder"} if self.preprocess.decoder == "pillow" else None)
        parts = [architecture, self.image_weights_sha256, self.precision, preprocess, policy, self.adapter]
        return _digest([*parts, self.calibration] if self.calibration else parts)

    @property
    def fingerprint(self) -> str:
        """`<text space>-<image space>`, 16 hex digits each."""
        return f"{self.text_space[:16]}-{self.image_space[:16]}"

    @property
    def policy_name(self) -> str:
        """Name of the policy, `none` for the unpruned tower."""
        return self.policy.name if self.policy else "none"

    def describe(self) -> str:
        """A one-line description of this encoder for error messages."""
        tag = f"/{self.source.pretrained}" if self.source.pretrained else ""
        adapter = f", adapter {self.adapter[:16]}" if self.adapter else ""
        decoder = f", decoder {self.preprocess.decoder}" if self.preprocess.decoder != "pillow" else ""
        return f"{self.fingerprint} ({self.source.model}{tag}, {self.policy_name}, {self.precision}{adapter}{decoder})"


class ClaimedSpec(BaseModel):
    """The encoder of imported embeddings: the model that somebody says made them. Nobody here saw it do so.

    It has what readers of a store need of an `EncoderSpec`, under the same names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_claimed: Literal[True] = True
    source: ModelSource
    embedding_dim: int
    precision: Literal["fp32", "fp16"]
    """How the embeddings are stored."""

    known_text_space: str | None = None
    """Text space of the claimed model, if it could be loaded for the import."""

    policy: ClassVar[None] = None
    text_adapter: ClassVar[None] = None
    calibration: ClassVar[None] = None

    @property
    def text_space(self) -> str:
        """Hash of everything that a text vector depends on (hex), or of the claim if that is all there is."""
        return self.known_text_space or _digest(["claimed", self.source.model_dump(mode="json"), self.embedding_dim])

    @property
    def image_space(self) -> str:
        """Hash of the claim (hex)."""
        source = self.source.model_dump(mode="json")
        return _digest(["claimed", source, self.embedding_dim, self.precision, self.text_space])

    @property
    def fingerprint(self) -> str:
        """`<text space>-<image space>`, 16 hex digits each."""
        return f"{self.text_space[:16]}-{self.image_space[:16]}"

    def describe(self) -> str:
        """A one-line description for messages."""
        tag = f"/{self.source.pretrained}" if self.source.pretrained else ""
        return f"{self.fingerprint} ({self.source.model}{tag}, claimed by an import and not verified, {self.precision})"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def spec_metadata(spec: EncoderSpec | ClaimedSpec) -> dict[str, Any]:
    """The spec and its fingerprints, as written to run.json and to each part."""
    return {
        "encoder": spec.model_dump(mode="json"),
        "fingerprint": spec.fingerprint,
        "text_space": spec.text_space,
        "image_policy": spec.image_space,
    }
