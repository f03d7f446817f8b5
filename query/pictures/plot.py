"""How plots are drawn and written. matplotlib takes half a second to import, so it is imported when needed."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.durable.atomic import write_atomically
from query.formats import PLOTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def drawing_settings() -> Iterator[None]:
    """Draw and write figures inside this: text stays text in SVG, names are taken as they are, files repeat exactly."""
    import matplotlib

    settings = {"svg.fonttype": "none", "svg.hashsalt": "clipsieve", "text.parse_math": False, "font.size": 10}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # the fonts of this machine need not have every script; SVG leaves the choice to the reader's
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def write_plot(path: Path, figure: "Figure") -> None:
    """Write a figure in the format of the file's suffix: one of `PLOTS`, or PNG without a suffix.

    Raises:
        StoreError: If the file cannot be written.
    """
    kind = PLOTS.get(path.suffix.lower(), "png")
    without_date = {"metadata": {"Date": None}} if kind == "svg" else {}
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=200, **without_date))
