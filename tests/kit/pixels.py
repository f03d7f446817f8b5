"""Preprocessing for tests, open_clip's pixels for it, and images as encoded files."""

import io

from pipeline.model.spec import Preprocess
from pipeline.model.transform import reference_transform


def preprocess(height=32, width=32, **more):
    # with mean 0 and std 1, open_clip's output is the pixels themselves
    return Preprocess(height=height, width=width, mean=(0, 0, 0), std=(1, 1, 1), **more)


def open_clip_pixels(image, wanted):
    return (reference_transform(wanted)(image) * 255).round().byte().permute(1, 2, 0).numpy()


def encoded(image, kind, **more):
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def pixels_and_results(batch):
    return batch.pixels, batch.results
