"""Plan files of `clipsieve bench policies`, which came before `clipsieve sweep`: a YAML list of series."""

from pathlib import Path

from pipeline.errors import ConfigError

_HEAD = """\
# model:                     # what --model and --pretrained named; without this key, the built-in model
#   model: ViT-B-16
#   pretrained: laion2b_s34b_b88k
data:
  - name: photos
    images: IMAGES           # what --images named
    captions: CAPTIONS       # what --captions named
# precision, device, batch_size, rounds and bench_images are keys now; --adapter is `adapters: [...]` of a series
series:
"""


class EarlierPlan(ConfigError):
    """A grid is a plan file of an earlier version."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"grid {path} is a plan of `clipsieve bench policies`, a list of series; a sweep has the series under the "
            "key `series`, beside `data`: write the lines that standard output shows"
        )
        self.lines = new_spelling(path)
        """The plan as a grid, to write to a file."""


def new_spelling(path: Path) -> str:
    """The text of a plan as a grid. Comments at the top stay at the top."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    start = next((number for number, line in enumerate(lines) if line.lstrip().startswith(("-", "["))), 0)
    head = [line for line in lines[:start] if line.startswith("#")]
    series = [f"  {line}" if line else "" for line in lines[start:]]
    return "\n".join([*head, *_HEAD.splitlines(), *series]) + "\n"
