"""Textures and shapes for the pictures of `pipeline.scenes.collection`."""

import math

import numpy as np
from PIL import Image, ImageDraw

_SUPERSAMPLING = 4


def texture_level(texture: str, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a texture.

    Args:
        texture: `striped`, `checkered`, `dotted`, `speckled`, or anything else for a plain gradient.
        image_size: Side in pixels.
        rng: Source of the period, the phase and the noise.

    Returns:
        The brightness to add to the tint of the background, float [image_size, image_size], about -20 to 20.
    """
    x = np.arange(image_size, dtype=np.float32) - image_size / 2
    y = x[:, None]
    period = image_size * rng.uniform(0.09, 0.13)
    # The clipped waves have edges about one pixel wide, so they need no supersampling.
    wave = 2 * math.pi / period
    sharpness = period / 4
    phase_x, phase_y, angle = rng.uniform(0, 2 * math.pi, size=3)
    if texture == "striped":
        along = x * math.cos(angle) + y * math.sin(angle)
        return 20 * np.clip(sharpness * np.sin(wave * along + phase_x), -1, 1)
    if texture == "checkered":
        board = np.sin(wave * x / 2 + phase_x) * np.sin(wave * y / 2 + phase_y)
        return 20 * np.clip(2 * sharpness * board, -1, 1)
    if texture == "dotted":
        dots = np.cos(wave * x + phase_x) + np.cos(wave * y + phase_y) - 1
        return 30 * np.clip(sharpness * dots, 0, 1) - 8
    if texture == "speckled":
        blocks = rng.standard_normal((image_size // 2 + 1,) * 2, dtype=np.float32)
        return 16 * blocks.repeat(2, 0).repeat(2, 1)[:image_size, :image_size]
    along = x * math.cos(angle) + y * math.sin(angle)
    return along * (16 / image_size)


def paste_shape(
    image: Image.Image, shape: str, colour: tuple[int, ...], center: tuple[float, float], radius: float, angle: float
) -> None:
    """Paste one antialiased shape into an RGB image, in place.

    Args:
        image: The image.
        shape: `circle`, `ring`, `square`, `triangle`, `star` or `cross`.
        colour: Red, green and blue, 0 to 255.
        center: (x, y) in pixels.
        radius: Radius of the circle around the shape, in pixels.
        angle: Clockwise rotation of the shape, in radians.
    """
    left, top = (math.floor(value - radius) - 1 for value in center)
    side = math.ceil(2 * radius) + 4
    scale = _SUPERSAMPLING
    mask = Image.new("L", (side * scale, side * scale))
    x, y = (center[0] - left) * scale, (center[1] - top) * scale
    _draw_mask(ImageDraw.Draw(mask), shape, x, y, radius * scale, angle)
    image.paste(colour, (left, top), mask.reduce(scale))


def _draw_mask(pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, angle: float) -> None:
    """Fill one shape of circumradius `radius` around (x, y), all in pixels."""
    if shape in ("circle", "ring"):
        size = 0.9 * radius
        pen.ellipse((x - size, y - size, x + size, y + size), fill=255)
        if shape == "ring":
            hole = 0.5 * radius
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
        return
    points = [(x + radius * r * math.sin(a + angle), y - radius * r * math.cos(a + angle)) for r, a in _OUTLINES[shape]]
    pen.polygon(points, fill=255)


def _regular(corners: int, start: float, radii: tuple[float, ...] = (1.0,)) -> list:
    """Return the corners of a regular polygon, or of a star if `radii` alternate."""
    step = 2 * math.pi / corners
    return [(radii[i % len(radii)], start + i * step) for i in range(corners)]


# Corners in polar coordinates (radius, clockwise angle from the top).
_OUTLINES = {
    "square": _regular(4, math.pi / 4),
    "triangle": _regular(3, 0.0),
    "star": _regular(10, 0.0, (1.0, 0.42)),
    "cross": [
        (0.95 * math.hypot(right, up), math.atan2(right, up) + turn * math.pi / 2)
        for turn in range(4)
        for right, up in ((-0.3, 1.0), (0.3, 1.0), (0.3, 0.3))
    ],
}
