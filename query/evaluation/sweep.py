"""`clipsieve sweep`: from a grid to a report.

What is measured goes to raw files; results are computed from those alone, so `--report-only` needs no images.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.durable.atomic import write_json
from pipeline.durable.lock import store_lock
from pipeline.monitor.progress import Tick
from query.evaluation.earlier import open_earlier
from query.evaluation.exports.write import write_exports
from query.evaluation.gates import check, recorded_grid, refuse_unanswerable
from query.evaluation.grid.expand import expand
from query.evaluation.grid.read import read_grid
from query.evaluation.metrics.results_of import results_of
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.record import SweepRecord
from query.evaluation.report.write import write_report
from query.evaluation.results import Results
from query.evaluation.running.run import run
from query.evaluation.settings import SweepSettings


def sweep(
    settings: SweepSettings,
    on_tick: Callable[[str, Tick], None] = lambda name, tick: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Results:
    """Measure what a grid asks for, as far as it is not measured yet, and write results, report and exports.

    Args:
        settings: The grid, and the folder for everything.
        on_tick: Called with a step's name and its progress.
        on_note: Called with what was kept of earlier runs, and why something was not.

    Returns:
        The results, as `results.json` holds them. Gates that failed are no error here; see `gates.refuse_failed`.

    Raises:
        ConfigError: If the grid is wrong, the device is not available, or a gate cannot be checked.
        InputError: If a model or a data set cannot be read.
        StoreError: If the folder cannot be used, or a raw file is missing or damaged.
    """
    folder = SweepFolder(settings.out)
    grid = read_grid(settings.grid) if settings.grid and (settings.gates or not settings.report_only) else None
    if settings.gates and grid:
        refuse_unanswerable(grid, settings.baseline)
    if not settings.report_only:
        conditions = expand(grid)
        folder.root.mkdir(parents=True, exist_ok=True)
        with store_lock(folder.root):
            run(grid, conditions, folder, settings.again, on_tick, on_note, partial(_refuse_other, settings.baseline))
    results = results_of(folder)
    if settings.gates:
        results = replace(results, gates=check(results, grid or recorded_grid(folder), folder, settings.baseline))
    write_json(folder.results, results.as_json())
    write_report(results, folder, settings.photos)
    write_exports(results, folder, settings.formats())
    return results


def _refuse_other(baseline: Path | None, record: SweepRecord) -> None:
    """Refuse an earlier sweep that this one cannot be compared with, while nothing is measured yet."""
    if baseline:
        open_earlier(baseline, record.data)
