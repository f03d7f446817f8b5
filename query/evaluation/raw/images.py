"""What is known of each image of a gallery under a condition.

Shapes: N images.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from query.evaluation.raw.head import RawHead, read_raw, write_raw


def write_cosines(path: Path, cosines_N: np.ndarray, head: RawHead) -> None:
    """Write the cosine (float32) of each image's vector to its vector under the baseline, in the gallery's order.

    Raises:
        StoreError: If the file cannot be written.
    """
    images = np.arange(len(cosines_N), dtype=np.int32)
    write_raw(path, pa.table({"image": images, "cosine": pa.array(cosines_N, pa.float32())}), head)


def read_cosines(path: Path, expected: RawHead | None = None) -> np.ndarray:
    """Read the cosines (float32 [N]).

    Raises:
        StoreError: If the file is missing, damaged, or was measured on something else.
    """
    return read_raw(path, expected)[0]["cosine"].to_numpy()
