"""The plan of a build: everything its bytes depend on. Written before the build, and obeyed when it continues."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from indexer.files import faiss_version, simd_level
from pipeline.durable.seal import unsealed_json, write_sealed_json

FOLDER = "building"
PLAN_FILE = "plan.json"
ROWS_FILE = "rows.json"


OnStep = Callable[[str, int, int], None]
"""Called with the name of a step, what is done of it, and its total."""


class BuildPlan(BaseModel):
    """What is built, of which rows, and how the work is divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    recipe: str
    num_lists: int
    parts: dict[int, str]
    """Hashes of the parts, by the ordinal of their shard."""
    deleted_sha256: str
    """Of the ids that were deleted when the build began."""
    number: int
    """In the names of the files."""
    num_train: int
    """Rows of the training sample."""
    iterations: int
    """Of k-means."""
    chunk_rows: int
    """Rows that are assigned to lists, or added to a graph, at once."""
    threads: int
    seed: int
    simd: str
    faiss_version: str
    reason: str = ""
    """Why this recipe was chosen, for people."""
    asked: dict[str, Any] = {}
    """The settings that it was made for."""

    def is_for(self, parts: dict[int, str], deleted_sha256: str, asked: dict[str, Any]) -> bool:
        """Whether it builds these rows, and is what is asked for now; what is not asked for again does not matter."""
        own = self.asked | {"recipe": self.recipe}
        is_same = all(own.get(name) == value for name, value in asked.items())
        return is_same and (parts, deleted_sha256) == (self.parts, self.deleted_sha256)

    def differences(self) -> list[str]:
        """In what this process differs from the one that began the build, if its bytes can depend on it."""
        here = {"simd": simd_level(), "faiss_version": faiss_version()}
        return [
            f"{name} {getattr(self, name)} then, {now} now" for name, now in here.items() if getattr(self, name) != now
        ]

    def write(self, folder: Path) -> None:
        """Write it to the folder of the build."""
        write_sealed_json(folder / PLAN_FILE, self.model_dump(mode="json"))


def read_plan(folder: Path) -> BuildPlan | None:
    """The plan of an unfinished build. None if there is none that can be continued."""
    try:
        return BuildPlan.model_validate(unsealed_json((folder / PLAN_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, json.JSONDecodeError):
        return None


def sample_positions(num_rows: int, num: int, seed: int) -> np.ndarray:
    """A seeded sample of positions (int64, ascending), spread over all rows."""
    if num >= num_rows:
        return np.arange(num_rows)
    # one from each of `num` equal stretches, so that no shard is left out
    bounds = np.linspace(0, num_rows, num + 1).astype(np.int64)
    drawn = np.random.default_rng(seed).random(num)
    return bounds[:-1] + (drawn * np.diff(bounds)).astype(np.int64)
