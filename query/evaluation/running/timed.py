"""Timed rounds of image towers: a file for each round, so that a run that is killed loses one round at most."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from pipeline.measure.timing import round_seconds
from pipeline.model.spec import Preprocess
from pipeline.monitor.progress import Tick
from query.evaluation.raw.timings import Round, path_of, read_rounds, write_round
from query.evaluation.running.galleries import Part
from query.evaluation.running.kept.work import Work, forget, is_made_of, note_made_of
from query.evaluation.running.towers import Tower
from query.evaluation.running.vectors import encode, pixels_of

KIND = "timed rounds"
_IMAGES = "images"


def time_towers(
    work: Work,
    towers: Sequence[Tower],
    part: Part,
    num_images: int,
    rounds: int,
    batch_size: int,
    pairs: Sequence[tuple[str, str]] = (),
) -> None:
    """Time every tower in so many rounds; a round runs all of them, every other one in reverse order.

    Rounds of earlier runs count. Conditions that came later are timed in rounds of their own, together with the
    baseline: only times of the same round are compared.

    Args:
        work: The run.
        towers: The baseline first.
        part: Its first images are what towers are timed on, as pixels in memory.
        num_images: How many of them; all, if there are fewer.
        rounds: Rounds that each condition takes part in.
        batch_size: Images per forward pass.
        pairs: Keys of conditions whose speeds are compared with each other, too.
    """
    num_images = min(num_images, len(part.entries))
    _remove_other_rounds(work, towers, {"num_images": num_images, "images_sha256": part.images_sha256})
    work.tally.kept[KIND] += len(_rounds(work))
    by_key = {tower.key: tower for tower in towers}
    pixels: dict[Preprocess, np.ndarray] = {}
    while (found := next_block(_rounds(work), list(by_key), rounds, pairs)) is not None:
        block, numbers, keys = found
        calls = {}
        for tower in (by_key[key] for key in keys):
            preprocess = tower.encoder.spec.preprocess
            if preprocess not in pixels:
                pixels[preprocess] = pixels_of(part, slice(0, num_images), tower)
            calls[tower.key] = partial(encode, tower, pixels[preprocess], batch_size)
        _time_block(work, block, numbers, calls, num_images)


def next_block(
    found: Sequence[Round], keys: Sequence[str], rounds: int, pairs: Sequence[tuple[str, str]] = ()
) -> tuple[int, list[int], list[str]] | None:
    """What to time next. A block that was cut short comes first; what no block has yet makes a new one.

    Args:
        found: The rounds there are.
        keys: The conditions, the baseline first.
        rounds: Rounds that each of them needs.
        pairs: Those that need a round together: if one is timed, so is the other.

    Returns:
        A block, the numbers of its rounds that are missing, and its conditions; None if nothing is missing.
    """
    counts = Counter(key for timed in found for key in timed.keys)
    lacking = {key for key in keys if counts[key] < rounds}
    if not lacking:
        return None
    for block in dict.fromkeys(timed.block for timed in found):
        members = {timed.number: set(timed.keys) for timed in found if timed.block == block}
        own = next(iter(members.values()))
        missing = [number for number in range(rounds) if number not in members]
        if missing and own & lacking and own <= set(keys):
            return block, missing, [key for key in keys if key in own]
    num_missing = rounds - min(counts[key] for key in lacking)
    lacking |= {key for pair in pairs if lacking & set(pair) for key in pair}
    new = [key for key in keys if key in lacking or key == keys[0]]
    return max((timed.block for timed in found), default=-1) + 1, list(range(num_missing)), new


def forget_rounds(work: Work) -> None:
    """Forget on what towers were timed, so that they are timed again."""
    forget(work.folder.timings, _IMAGES)


def _time_block(
    work: Work, block: int, numbers: Sequence[int], calls: Mapping[str, Callable[[], object]], num_images: int
) -> None:
    round_seconds(calls)  # a warm-up, which does not count
    for place, number in enumerate(numbers):
        seconds = round_seconds(calls, is_reversed=number % 2 == 1)
        timed = Round(
            number=number,
            block=block,
            kind="tower",
            keys=list(seconds),
            seconds=list(seconds.values()),
            num_items=[num_images] * len(seconds),
            environment_key=work.environment_key,
        )
        write_round(work.folder.timings, timed)
        work.tally.measured[KIND] += 1
        work.on_tick("rounds", Tick(place + 1, len(numbers), 0, 0.0, is_of_images=False))


def _remove_other_rounds(work: Work, towers: Sequence[Tower], images: dict[str, object]) -> None:
    """Remove the rounds that were timed in another environment, on other images, or with another tower of a key."""
    folder, made_of = work.folder.timings, {tower.key: _made_of(tower) for tower in towers}
    are_same_images = is_made_of(folder, _IMAGES, images)
    changed = {key for key, inputs in made_of.items() if not is_made_of(folder, key, inputs)}
    for timed in _rounds(work):
        if not are_same_images or timed.environment_key != work.environment_key or changed & set(timed.keys):
            path_of(folder, timed).unlink()
    note_made_of(folder, _IMAGES, images)
    for key in changed:
        note_made_of(folder, key, made_of[key])


def _made_of(tower: Tower) -> dict[str, str]:
    """What the speed of a tower depends on: everything but the values of its weights."""
    spec = tower.encoder.spec
    own = spec.model_dump(mode="json", include={"architecture", "precision", "preprocess", "policy"})
    own["has_adapter"] = spec.adapter is not None
    return {"tower": hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()}


def _rounds(work: Work) -> list[Round]:
    return [timed for timed in read_rounds(work.folder.timings) if timed.kind == "tower"]
