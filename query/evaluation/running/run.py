"""A run of a sweep: from a grid to raw files. What is there and still holds is kept; the rest is measured."""

import shutil
from collections.abc import Callable, Sequence

from query.evaluation.grid.condition import Condition
from query.evaluation.grid.read import Grid
from query.evaluation.raw.data import write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.record import write_record
from query.evaluation.record import SweepRecord
from query.evaluation.running.galleries import blocks_of
from query.evaluation.running.indexes.measure import check_indexes, measure_indexes
from query.evaluation.running.kept.work import OnTick, forget
from query.evaluation.running.mixed import check_mixed, rank_mixed
from query.evaluation.running.pictures import draw_kept_patches, forget_pictures
from query.evaluation.running.prepare import OnNote, Prepared, prepare
from query.evaluation.running.ranked import rank
from query.evaluation.running.texts import embed_texts, text_key
from query.evaluation.running.timed import forget_rounds, time_towers
from query.evaluation.running.vectors import embed_images


def run(
    grid: Grid,
    conditions: Sequence[Condition],
    folder: SweepFolder,
    again: bool = False,
    on_tick: OnTick = lambda name, tick: None,
    on_note: OnNote = lambda text: None,
    accept: Callable[[SweepRecord], None] = lambda record: None,
) -> SweepRecord:
    """Measure what a grid asks for, and leave raw files in a folder. No other process may work on it meanwhile.

    Args:
        grid: The grid.
        conditions: Its conditions, the baseline first.
        folder: Where raw files go. What it holds is kept, unless something that it depends on has changed.
        again: Measure everything that the grid names again.
        on_tick: Called with the progress of each step.
        on_note: Called with what one should know about the run itself: what was kept, and why not.
        accept: Called with the record before anything is measured or written. It raises an error to refuse it.

    Returns:
        The record, as `sweep.json` holds it.

    Raises:
        ConfigError: If the device is not available, a policy does not fit its tower, two conditions are the same
            encoder, or a k is larger than a gallery.
        InputError: If a model or a data set cannot be read.
        StoreError: If the folder cannot be written, or another version of the schema wrote it.
    """
    found = prepare(grid, conditions, folder, again, on_tick, on_note)
    work, record, towers, galleries = found.work, found.record, found.towers, found.galleries
    check_mixed(grid, towers)
    check_indexes(grid, towers, galleries)
    accept(record)
    timed_on = galleries[0].parts[0]
    if again:
        forget_all(found)
    write_record(folder, record)
    for gallery in galleries:
        write_data(folder.data(gallery.data.name), gallery.data)
    embed_images(work, towers, galleries, found.batch_size)
    embed_texts(work, towers, galleries)
    rank(work, record, towers, galleries)
    pairs = [(one.key, other.key) for one in record.conditions if (other := record.in_float(one))]
    time_towers(work, towers, timed_on, grid.keys.bench_images, grid.keys.rounds, found.batch_size, pairs)
    rank_mixed(work, grid, record, towers, galleries)
    record = measure_indexes(work, grid, record, towers, galleries)
    draw_kept_patches(work, towers, timed_on)
    write_record(folder, record)
    on_note(work.tally.describe())
    return record


def forget_all(found: Prepared) -> None:
    """Forget what earlier runs measured of what the grid names. A run that is killed then measures the rest again."""
    work, folder = found.work, found.work.folder
    spaces = {tower.encoder.text_space for tower in found.towers}
    for gallery in found.galleries:
        name = gallery.data.name
        for part in gallery.parts:
            for key in [*gallery.keys, *(text_key(space) for space in spaces)]:
                blocks_of(folder, key, part).forget()
        for space in spaces:
            path = folder.texts(space, name)
            forget(path.parent, path.name)
        for key in gallery.keys:
            folder.ranks(key, name).unlink(missing_ok=True)
            folder.images(key, name).unlink(missing_ok=True)
            folder.to_float(key, name).unlink(missing_ok=True)
    for path in (folder.mixed, folder.indexes):
        shutil.rmtree(path, ignore_errors=True)
    forget_rounds(work)
    forget_pictures(work)
