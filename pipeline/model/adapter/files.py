"""An adapter on disk: the factors of a fusion, the model they belong to, and how they were trained.

An adapter is a directory with `adapter.safetensors` and `adapter.json` (the adapter card). The card is written last: a
directory without it is not an adapter.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from pipeline.durable.atomic import write_atomically, write_json
from pipeline.errors import InputError, first_line
from pipeline.model.adapter.config import FusionConfig
from pipeline.model.adapter.fusion import Fusion
from pipeline.model.hashing import hash_tensors
from pipeline.model.spec import EMBEDDED

TENSORS_FILE, CARD_FILE = "adapter.safetensors", "adapter.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter trained for one model."""

    path: str
    config: FusionConfig
    factors: dict[str, Tensor]
    summary_offsets_LD: Tensor | None
    """Added to the summary token before each of L blocks: part of the policy, not of the weights."""

    base: dict[str, Any]
    """The model it was trained on: name, pretrained tag, `weights_sha256`."""

    sha256: str

    @property
    def updates_text(self) -> bool:
        """Whether the adapter changes the text tower."""
        return self.config.variant != "image-only"

    def merge_into(self, clip: nn.Module, weights_sha256: str) -> Callable[[], None]:
        """Add the updates to the weights of a model in float32, and return `unmerge`.

        Raises:
            InputError: If the adapter was trained on other weights.
        """
        if weights_sha256 != self.base["weights_sha256"]:
            raise InputError(
                f"adapter {self.path} was trained on weights {self.base['weights_sha256']} "
                f"({self.base['model']}), but this model has {weights_sha256}; use the model it was trained on"
            )
        fusion = Fusion(clip, self.config)
        fusion.load_state_dict(self.factors)
        return merge(fusion, clip)


def merge(fusion: Fusion, clip: nn.Module) -> Callable[[], None]:
    """Add the updates to the weights of a model, in place.

    Returns:
        `unmerge`, which restores the original weights exactly.
    """
    before = {}
    with torch.no_grad():
        for name, update in fusion.updates().items():
            weight = clip.get_parameter(name)
            before[name] = weight.detach().clone()
            weight.add_(update.to(weight.device))

    def unmerge() -> None:
        with torch.no_grad():
            for name, weight in before.items():
                clip.get_parameter(name).copy_(weight)

    return unmerge


def write_adapter(
    folder: Path,
    fusion: Fusion,
    summary_offsets_LD: Tensor | None,
    base: Mapping[str, Any],
    account: Mapping[str, Any],
) -> None:
    """Write an adapter: its tensors, then its card. `account` records how it was trained and its results.

    Raises:
        StoreError: If the files cannot be written.
    """
    factors = {name: tensor.detach().cpu().contiguous() for name, tensor in fusion.state_dict().items()}
    content = to_safetensors(factors)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TENSORS_FILE, lambda path: path.write_bytes(content))
    offsets = None if summary_offsets_LD is None else summary_offsets_LD.detach().cpu()
    card = {
        "sha256": _hash(fusion.config, factors, offsets),
        "base": dict(base),
        "fusion": fusion.config.model_dump(mode="json"),
        "cores": {site.key: site.core for site in fusion.sites},
        **account,
        "summary_offsets": None if offsets is None else offsets.tolist(),
    }
    write_json(folder / CARD_FILE, card)


def read_adapter(name: str) -> Adapter:
    """Read an adapter from its directory; `scenes` names the adapter of the built-in model.

    Raises:
        InputError: If it is missing or damaged.
    """
    folder = _folder(name)
    card = read_card(folder)
    try:
        factors = from_safetensors((folder / TENSORS_FILE).read_bytes())
        config = FusionConfig(**card["fusion"])
        offsets = None if card["summary_offsets"] is None else torch.tensor(card["summary_offsets"])
        adapter = Adapter(
            path=name,
            config=config,
            factors=factors,
            summary_offsets_LD=offsets,
            base=card["base"],
            sha256=card["sha256"],
        )
    except OSError as error:
        raise _unreadable(folder, error) from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _damaged(folder, first_line(error)) from error
    if _hash(config, factors, offsets) != adapter.sha256:
        raise _damaged(folder, "its tensors do not match its card")
    return adapter


def read_card(folder: Path) -> dict[str, Any]:
    """Read the adapter card: how the adapter was trained, and its results.

    Raises:
        InputError: If the card is missing or damaged.
    """
    try:
        return json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(folder, error) from error
    except ValueError as error:
        raise _damaged(folder, str(error)) from error


def _folder(name: str) -> Path:
    return Path(str(resources.files("pipeline.scenes") / "adapter")) if name == EMBEDDED else Path(name)


def _unreadable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot read adapter {folder}: {error.strerror} ({Path(error.filename).name}); give a directory in which "
        "`clipsieve adapt` has finished"
    )


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(f"adapter {folder} is damaged: {reason}; copy it again, or retrain it")


def _hash(config: FusionConfig, factors: Mapping[str, Tensor], offsets: Tensor | None) -> str:
    shape = torch.frombuffer(bytearray(config.model_dump_json().encode()), dtype=torch.uint8)
    tensors = {**factors, "config": shape} | ({} if offsets is None else {"summary_offsets": offsets.float()})
    return hash_tensors(tensors.items())
