"""Pictures of the patches that policies keep, for a few images and conditions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.towers.families import view_of
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.running.galleries import Part
from query.evaluation.running.kept.work import Work, forget, is_made_of, note_made_of
from query.evaluation.running.towers import Tower
from query.evaluation.running.vectors import pixels_of
from query.pictures.overlay import write_overlay

KIND = "pictures"
NUM_IMAGES = 3
NUM_CONDITIONS = 4


def picture_path(folder: SweepFolder, key: str, number: int) -> Path:
    """Where the picture of an image (from 1) under a condition is."""
    return folder.pictures / f"{key}-{number}.png"


def draw_kept_patches(work: Work, towers: Sequence[Tower], part: Part) -> None:
    """Draw the patches that the first few pruned conditions keep of a few images, spread evenly over a part."""
    places = sorted({round(place) for place in np.linspace(0, len(part.entries) - 1, NUM_IMAGES)})
    drawn = shown(towers)
    wanted = {picture_path(work.folder, tower.key, place + 1) for tower in drawn for place in range(len(places))}
    for path in set(work.folder.pictures.glob("*.png")) - wanted:  # the report shows every picture
        path.unlink()
    for tower in drawn:
        for number, place in enumerate(places):
            path = picture_path(work.folder, tower.key, number + 1)
            made_of = {"fingerprint": tower.fingerprint, "key": part.entries[place].key, "images": part.images_sha256}
            if path.exists() and is_made_of(path.parent, path.name, made_of):
                work.tally.kept[KIND] += 1
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            _draw(path, tower, pixels_of(part, slice(place, place + 1), tower)[0])
            note_made_of(path.parent, path.name, made_of)
            work.tally.measured[KIND] += 1


def forget_pictures(work: Work) -> None:
    """Forget what pictures were made of, so that they are drawn again."""
    for path in work.folder.pictures.glob("*.png"):
        forget(path.parent, path.name)


def shown(towers: Sequence[Tower]) -> list[Tower]:
    """The conditions to draw: those that drop patches, each policy once, those that were asked for before rivals."""
    by_policy: dict[str, Tower] = {}
    for tower in sorted(towers, key=lambda tower: tower.condition.role == "rival"):
        policy = tower.condition.policy
        if (
            policy and policy.schedule and policy.reduce != "bipartite"
        ):  # which merges pairs, and keeps no patch as it is
            by_policy.setdefault(policy.model_dump_json(exclude={"name"}), tower)
    return list(by_policy.values())[:NUM_CONDITIONS]


def _draw(path: Path, tower: Tower, pixels_HWC: np.ndarray) -> None:
    kept: list[tuple[int, np.ndarray]] = []
    encoder = Encoder(
        sharing_weights(tower.loaded),
        tower.condition.policy,
        lambda block, places_BK: kept.append((block, places_BK[0].cpu().numpy())),
    )
    encoder.encode(pixels_HWC[None])
    write_overlay(path, pixels_HWC, view_of(tower.loaded.clip.visual).grid, kept)
