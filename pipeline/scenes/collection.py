"""The built-in `scenes` collection: small drawn scenes with captions.

A scene contains two to four objects (size, colour, shape), each in its own cell of a 3 x 3 grid, on a textured and
tinted background. A caption names every object and the background, so it identifies its scene uniquely. Scenes come in
families of four that differ in one attribute of one object, so a search has to notice details.

The splits are disjoint by construction: a stable hash of a scene's description determines its split.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.scenes.drawing import paste_shape, texture_level

COLOURS = {
    "red": (214, 36, 36),
    "orange": (245, 135, 20),
    "yellow": (250, 225, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "purple": (140, 50, 180),
    "white": (248, 248, 248),
    "black": (16, 16, 16),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
TEXTURES = ("plain", "striped", "checkered", "dotted", "speckled")
TINTS = {
    "grey": (132, 132, 132),
    "beige": (206, 186, 150),
    "olive": (112, 116, 70),
    "teal": (78, 124, 128),
    "brown": (110, 82, 62),
}
SPLITS = ("train", "validation", "test")
GRID = 3
MIN_OBJECTS, MAX_OBJECTS = 2, 4
NUM_TEMPLATES = 4
FAMILY_SIZE = 4

_NUM_BUCKETS, _TEST_BUCKETS, _VALIDATION_BUCKETS = 16, 4, 2
# Radius of an object as a fraction of the side of its cell.
_RADIUS = {"small": 0.25, "large": 0.41}


@dataclass(frozen=True, order=True)
class SceneObject:
    """One object; `place` is one of `PLACES`, each used once per scene."""

    place: str
    size: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """The content of a picture, without its random details (see `draw`)."""

    objects: tuple[SceneObject, ...]
    texture: str
    tint: str

    def description(self) -> str:
        """Return the canonical text of the scene; equal scenes have equal texts."""
        parts = [f"{o.place}: {o.size} {o.colour} {o.shape}" for o in sorted(self.objects)]
        return "; ".join([*parts, f"{self.texture} {self.tint}"])


def split_of(scene: Scene) -> str:
    """Return the only split in which `scene` may appear."""
    digest = hashlib.blake2b(scene.description().encode(), digest_size=2).digest()
    bucket = digest[0] % _NUM_BUCKETS
    if bucket < _TEST_BUCKETS:
        return "test"
    return "validation" if bucket < _TEST_BUCKETS + _VALIDATION_BUCKETS else "train"


def make_scene(split: str, index: int, seed: int = 0) -> Scene:
    """Sample scene number `index` of a split.

    Args:
        split: One of `SPLITS`.
        index: Number of the scene, from 0.
        seed: Selects another sequence of scenes from the same split.

    Returns:
        The same scene for the same arguments. Each run of `FAMILY_SIZE` indices is one family. Families rarely
        overlap; `distinct_scenes` skips repeated scenes.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    number, member = divmod(index, FAMILY_SIZE)
    return _family(split, seed, number)[member]


def distinct_scenes(split: str, num_scenes: int, seed: int = 0) -> Iterator[Scene]:
    """Yield `num_scenes` scenes of a split, all with different descriptions."""
    seen: set[str] = set()
    index = 0
    while len(seen) < num_scenes:
        scene = make_scene(split, index, seed)
        index += 1
        if scene.description() not in seen:
            seen.add(scene.description())
            yield scene


def caption(scene: Scene, variant: int = 0) -> str:
    """Describe a scene in words.

    Args:
        scene: The scene.
        variant: Selects the sentence template and the order of the objects.

    Returns:
        One line that names every object with its place, and the background.
    """
    objects = list(scene.objects)
    random.Random(f"{scene.description()}/{variant}").shuffle(objects)
    background = f"a {scene.texture} {scene.tint} background"
    template = variant % NUM_TEMPLATES
    if template == 0:
        return f"{_enumerate([_object_first(o) for o in objects])} on {background}"
    if template == 1:
        return f"{background} with {_enumerate([_object_first(o) for o in objects])}"
    if template == 2:
        return f"{_enumerate([_place_first(o) for o in objects])}, on {background}"
    terse = [f"{o.size} {o.colour} {o.shape} {o.place}" for o in objects]
    return ", ".join([*terse, f"{scene.texture} {scene.tint} background"])


def draw(scene: Scene, image_size: int = 96, seed: int = 0) -> Image.Image:
    """Draw a scene.

    Args:
        scene: The scene.
        image_size: Side of the square picture in pixels.
        seed: Selects the random details: exact position, angle, shade and radius of each object, and the phase and
            noise of the texture.

    Returns:
        An RGB picture, `image_size` x `image_size`; the same for the same arguments.
    """
    key = hashlib.blake2b(f"{scene.description()}/{seed}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(key, "big"))
    image = Image.fromarray(_background(scene, image_size, rng))
    cell = image_size / GRID
    for item in scene.objects:
        row, column = divmod(PLACES.index(item.place), GRID)
        jitter = rng.uniform(-1, 1, size=7)
        radius = _RADIUS[item.size] * cell * (1 + 0.05 * jitter[0])
        slack = 0.47 * cell - radius
        center = ((column + 0.5) * cell + slack * jitter[1], (row + 0.5) * cell + slack * jitter[2])
        shade = tuple(
            int(min(255, max(0, level + 12 * shift)))
            for level, shift in zip(COLOURS[item.colour], jitter[3:6], strict=True)
        )
        paste_shape(image, item.shape, shade, center, radius, angle=0.25 * jitter[6])
    return image


def write_collection(out: Path, num_images: int, split: str = "test", seed: int = 0, image_size: int = 96) -> Path:
    """Write distinct scenes as pictures with one caption each.

    Args:
        out: Directory to write to; created if missing.
        num_images: Number of pictures.
        split: One of `SPLITS`.
        seed: Seed of the scenes and of their random details.
        image_size: Side of the pictures in pixels.

    Returns:
        The path of `captions.tsv`, in UTF-8 with one line per picture: the path of the picture relative to `out`
        (`images/00000.jpg`), a tab, the caption.
    """
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for index, scene in enumerate(distinct_scenes(split, num_images, seed)):
        name = f"images/{index:05d}.jpg"
        draw(scene, image_size, seed).save(out / name, quality=95, subsampling=0)
        lines.append(f"{name}\t{caption(scene, variant=index)}\n")
    captions = out / "captions.tsv"
    captions.write_text("".join(lines), encoding="utf-8", newline="\n")
    return captions


@lru_cache(maxsize=4)
def _family(split: str, seed: int, number: int) -> tuple[Scene, ...]:
    """Return `FAMILY_SIZE` scenes of a split; all others differ from the first in one attribute."""
    rng = random.Random(f"{split}/{seed}/{number}")
    while True:
        first = sample_scene(rng)
        variants = _variants(first)
        rng.shuffle(variants)
        members = [scene for scene in (first, *variants) if split_of(scene) == split]
        if split_of(first) == split and len(members) >= FAMILY_SIZE:
            return tuple(members[:FAMILY_SIZE])


def _variants(scene: Scene) -> list[Scene]:
    """Return every scene that differs from `scene` in the size, colour or shape of one object."""
    return [
        replace(scene, objects=(*scene.objects[:i], replace(item, **{name: value}), *scene.objects[i + 1 :]))
        for i, item in enumerate(scene.objects)
        for name, values in (("size", SIZES), ("colour", COLOURS), ("shape", SHAPES))
        for value in values
        if value != getattr(item, name)
    ]


def sample_scene(rng: random.Random) -> Scene:
    """Draw a scene of any split."""
    places = rng.sample(PLACES, rng.randint(MIN_OBJECTS, MAX_OBJECTS))
    objects = tuple(
        SceneObject(place, rng.choice(SIZES), rng.choice(tuple(COLOURS)), rng.choice(SHAPES))
        for place in sorted(places, key=PLACES.index)
    )
    return Scene(objects, rng.choice(TEXTURES), rng.choice(tuple(TINTS)))


def _enumerate(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _position(place: str) -> str:
    return "in the center" if place == "center" else f"at the {place}"


def _object_first(item: SceneObject) -> str:
    return f"a {item.size} {item.colour} {item.shape} {_position(item.place)}"


def _place_first(item: SceneObject) -> str:
    return f"{_position(item.place)} a {item.size} {item.colour} {item.shape}"


def _background(scene: Scene, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the textured background, uint8 [image_size, image_size, 3]."""
    level = texture_level(scene.texture, image_size, rng)
    level = level + rng.standard_normal((image_size, image_size), dtype=np.float32) * 3
    tint = np.asarray(TINTS[scene.tint], np.float32) + rng.uniform(-10, 10)
    pixels = level.astype(np.float32)[:, :, None] + tint.astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)
