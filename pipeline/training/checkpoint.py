"""The saved state of a training run, from which a killed run resumes exactly. Home of torch's own file format."""

import io
from pathlib import Path
from typing import Any

import torch

from pipeline.durable.atomic import write_atomically
from pipeline.errors import ConfigError, StoreError


class Checkpoint:
    """A checkpoint file, always replaced as a whole."""

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        """`recipe` is everything that determines the result: a checkpoint with another recipe is refused."""
        self.path, self._recipe = path, recipe

    def read(self) -> dict[str, Any] | None:
        """Read the last state; None if there is no checkpoint yet.

        Raises:
            ConfigError: If the checkpoint was written with another recipe.
            StoreError: If the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            found, state = content["recipe"], content["state"]
        except Exception as error:  # torch raises many types for damaged files
            raise StoreError(f"checkpoint {self.path} is damaged; delete its folder to restart the training") from error
        for key in sorted(found.keys() | self._recipe.keys()):
            if found.get(key) != self._recipe.get(key):
                raise ConfigError(
                    f"{self.path.parent} contains an unfinished training with {key} = {found.get(key)!r}, not "
                    f"{self._recipe.get(key)!r}; give the same value to resume it, or choose another --out"
                )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state.

        Raises:
            StoreError: If the file cannot be written; the last state stays.
        """
        content = io.BytesIO()
        torch.save({"recipe": self._recipe, "state": state}, content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda path: path.write_bytes(content.getbuffer()))
