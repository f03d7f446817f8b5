"""Where a sweep keeps what in its folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """The folder of `--out`. Files appear whole or not at all."""

    root: Path

    @property
    def record(self) -> Path:
        """`sweep.json`."""
        return self.root / "sweep.json"

    def data(self, name: str) -> Path:
        """Folder of a data set: `queries.parquet`, `images.parquet` and `pairs.parquet`."""
        return self.root / "data" / name

    def vectors(self, key: str, data: str) -> Path:
        """Folder of the image vectors of a condition: blocks `00000.npy`, float32 [n, E]. May be deleted at the end."""
        return self.root / "vectors" / data / key

    def texts(self, text_space: str, data: str) -> Path:
        """The query vectors of a text space, float32 [Q, E]."""
        return self.root / "vectors" / data / f"texts-{text_space[:16]}.npy"

    def ranks(self, key: str, data: str) -> Path:
        """The answers of a condition to every query."""
        return self.root / "raw" / data / f"{key}.ranks.parquet"

    def images(self, key: str, data: str) -> Path:
        """What is known of each image of a condition: its cosine to the baseline."""
        return self.root / "raw" / data / f"{key}.images.parquet"

    def to_float(self, key: str, data: str) -> Path:
        """What is known of each image of a condition in 8 bits: its cosine to the same condition in float."""
        return self.root / "raw" / data / f"{key}.float.parquet"

    @property
    def calibrations(self) -> Path:
        """Folder of calibrations, and of what is known of the images that they were measured on."""
        return self.root / "calibrations"

    def calibration(self, fingerprint: str) -> Path:
        """The calibration of an encoder, by its fingerprint without one. `embed --calibration` reads it, too."""
        return self.calibrations / f"{fingerprint}.safetensors"

    @property
    def timings(self) -> Path:
        """Folder of timed rounds, one file each."""
        return self.root / "raw" / "timings"

    @property
    def mixed(self) -> Path:
        """Folder of the answers of mixed galleries."""
        return self.root / "raw" / "mixed"

    @property
    def indexes(self) -> Path:
        """Folder of indexes: a store for each. May be deleted at the end."""
        return self.root / "indexes"

    @property
    def pictures(self) -> Path:
        """Folder of pictures of kept patches."""
        return self.root / "pictures"

    @property
    def results(self) -> Path:
        """`results.json`."""
        return self.root / "results.json"
