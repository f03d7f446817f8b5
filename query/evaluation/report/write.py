"""Write the report of a sweep: one HTML file, Markdown, and the plot for papers."""

from pathlib import Path

from pipeline.durable.atomic import write_text
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.report.contents import contents_of
from query.evaluation.report.markdown import markdown
from query.evaluation.report.page import page
from query.evaluation.results import Results

_FORMATS = ("png", "svg")


def write_report(results: Results, folder: SweepFolder, photos: bool = True) -> list[Path]:
    """Write `report.html`, `report.md`, and `plot.png` and `plot.svg` if anything was timed.

    Further data sets have plots named `plot-2`, `plot-3` and so on.

    Args:
        results: What is reported.
        folder: Where the files go. Its raw files and pictures are shown, too.
        photos: Whether to show example queries and photographs.

    Returns:
        The files.

    Raises:
        StoreError: If a raw file is missing or damaged, or a file cannot be written.
    """
    contents = contents_of(results, folder, photos)
    plots = [one.plot for one in contents.data if one.plot]
    written, names = [], []
    for number, plot in enumerate(plots, start=1):
        names.append("plot" if number == 1 else f"plot-{number}")
        for suffix in _FORMATS:
            written.append(folder.root / f"{names[-1]}.{suffix}")
            plot.write(written[-1])
    html, text = folder.root / "report.html", folder.root / "report.md"
    write_text(text, markdown(contents, [f"{name}.png" for name in names]))
    write_text(html, page(contents))
    return [html, text, *written]
