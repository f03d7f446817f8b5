"""`clipsieve sweep`: from a grid to a report.

What is measured goes to raw files; results are computed from those alone, so `--report-only` needs no images.
"""

from collections.abc import Callable

from pipeline.durable.atomic import write_json
from pipeline.durable.lock import store_lock
from pipeline.monitor.progress import Tick
from query.evaluation.exports.write import write_exports
from query.evaluation.grid.expand import expand
from query.evaluation.grid.read import read_grid
from query.evaluation.metrics.results_of import results_of
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.report.write import write_report
from query.evaluation.results import Results
from query.evaluation.running.run import run
from query.settings import SweepSettings


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
        The results, as `results.json` holds them.

    Raises:
        ConfigError: If the grid is wrong, or the device is not available.
        InputError: If a model or a data set cannot be read.
        StoreError: If the folder cannot be used, or a raw file is missing or damaged.
    """
    folder = SweepFolder(settings.out)
    if not settings.report_only:
        grid = read_grid(settings.grid)
        conditions = expand(grid)
        folder.root.mkdir(parents=True, exist_ok=True)
        with store_lock(folder.root):
            run(grid, conditions, folder, settings.again, on_tick, on_note)
    results = results_of(folder)
    write_json(folder.results, results.as_json())
    write_report(results, folder)
    write_exports(results, folder, settings.formats())
    return results
