"""A small sweep: photographs with two captions each, a tiny model, and what its folder holds."""

import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.model.device import use_all_cores
from query.evaluation.grid.expand import expand
from query.evaluation.grid.read import read_grid
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.running import pictures, prepare
from query.evaluation.running.run import run

GRID = """\
model: {{model: "{model}"}}
precision: fp32
rounds: {rounds}
bench_images: 4
ks: [1, 5]
rivals: {{image_sizes: [0.71], keeps: [0.5], removed: [0.0664]}}
data:
  - {{name: photos, images: "{root}/photos", captions: "{root}/captions.tsv"{data}}}
series:
  - {{name: ours, policies: {policies}, adapters: [{adapters}]}}
{more}
"""


def few_threads() -> None:
    """Let runs of this process use one thread and draw one picture: the model is tiny, and other tests run, too."""
    prepare.use_all_cores = lambda: use_all_cores(1)
    pictures.NUM_IMAGES = pictures.NUM_CONDITIONS = 1


class SmallSweep:
    """A grid over a copy of the photographs, and runs of it into one folder."""

    def __init__(self, root: Path, photos: Path, model: str) -> None:
        """Copy the photographs, and write captions and a grid."""
        self.root, self.model, self.out = root, model, SweepFolder(root / "out")
        shutil.copytree(photos, root / "photos", copy_function=shutil.copy2)
        self.keys = sorted(path.relative_to(root / "photos").as_posix() for path in (root / "photos").rglob("*.*"))
        self.write_captions({key: [f"photo {key}", f"a picture, {key}"] for key in self.keys})
        self.write_grid()

    @property
    def grid(self) -> Path:
        """The grid file."""
        return self.root / "grid.yaml"

    def write_captions(self, captions: dict[str, list[str]]) -> None:
        """Write the captions by key."""
        lines = [f"{key}\t{text}\n" for key, texts in captions.items() for text in texts]
        (self.root / "captions.tsv").write_text("".join(lines))

    def write_grid(
        self,
        *,
        policies: str = "[lossless, balanced]",
        adapters: str = "none",
        rounds: int = 2,
        data: str = "",
        more: str = "",
    ) -> None:
        """Write the grid."""
        values = {"policies": policies, "adapters": adapters, "rounds": rounds, "data": data, "more": more}
        self.grid.write_text(GRID.format(model=self.model, root=self.root, **values))

    def run(self, again: bool = False) -> "Ran":
        """Run it in this process."""
        grid, notes = read_grid(self.grid), []
        self.out.root.mkdir(exist_ok=True)
        record = run(grid, expand(grid), self.out, again, on_note=notes.append)
        return Ran(record, notes)

    def key_of(self, name: str) -> str:
        """The key of a condition."""
        return next(found.key for found in expand(read_grid(self.grid)) if found.name == name)

    def contents(self, *folders: str) -> dict[str, bytes]:
        """The bytes of every file in some folders of the results."""
        return {name: path.read_bytes() for name, path in self._files(folders)}

    def times(self, *folders: str) -> dict[str, int]:
        """When every file in some folders of the results was written."""
        return {name: path.stat().st_mtime_ns for name, path in self._files(folders)}

    def _files(self, folders: tuple[str, ...]) -> list[tuple[str, Path]]:
        root = self.out.root
        paths = [path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file()]
        return [(path.relative_to(root).as_posix(), path) for path in paths]


class Ran:
    """A run: its record and its notes."""

    def __init__(self, record, notes: list[str]) -> None:
        """Hold both."""
        self.record, self.notes = record, notes


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.machine import prepare_for_torch
prepare_for_torch()
from tests.kit.small_sweep import few_threads
import query.evaluation.running.timed as timed
import query.evaluation.running.kept.blocks as blocks
from query.evaluation.grid.expand import expand
from query.evaluation.grid.read import read_grid
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.running.run import run

blocks.BLOCK = 4
few_threads()
step, at = sys.argv[3], int(sys.argv[4])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def on_tick(name, tick):
    if name == step and tick.num_done >= at:
        die()

encode, calls = timed.encode, []

def counted(*args):
    calls.append(args)
    if step == "within a round" and len(calls) == at:
        die()
    return encode(*args)

timed.encode = counted
grid, out = read_grid(Path(sys.argv[1])), Path(sys.argv[2])
out.mkdir(exist_ok=True)
run(grid, expand(grid), SweepFolder(out), False, on_tick)
"""


def run_until_killed(sweep: SmallSweep, step: str, at: int) -> None:
    """Run a sweep in a process of its own, with blocks of 4 vectors, which kills itself when a step is so far."""
    argv = [sys.executable, "-c", _KILLED, str(sweep.grid), str(sweep.out.root), step, str(at)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -9, done.stderr
