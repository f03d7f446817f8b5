"""The state of a training, kept so that a killed one goes on exactly where it was. Home of torch's own file format."""

import io
from pathlib import Path
from typing import Any

import torch

from pipeline.durable.atomic import write_atomically
from pipeline.errors import ConfigError, StoreError


class Checkpoint:
    """One file, replaced whole."""

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        """`recipe` is everything that decides the result: a state of another recipe is refused."""
        self.path, self._recipe = path, recipe

    def read(self) -> dict[str, Any] | None:
        """The last state written, None before the first.

        Raises:
            ConfigError: If it was written under another recipe.
            StoreError: If the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            found, state = content["recipe"], content["state"]
        except Exception as error:  # torch raises many kinds for damaged files
            raise StoreError(f"checkpoint {self.path} is damaged; delete its folder to train from the start") from error
        for key in sorted(found.keys() | self._recipe.keys()):
            if found.get(key) != self._recipe.get(key):
                raise ConfigError(
                    f"{self.path.parent} holds a training begun with {key} = {found.get(key)!r}, asked for "
                    f"{self._recipe.get(key)!r}; give the same to finish it, or another --out"
                )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state.

        Raises:
            StoreError: If the file system refuses; the last state stays.
        """
        content = io.BytesIO()
        torch.save({"recipe": self._recipe, "state": state}, content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda path: path.write_bytes(content.getbuffer()))
