"""Measure how nvJPEG's chroma upsampling changes embeddings: torchvision's nvJPEG repeats values, libjpeg interpolates.

    python tests/drills/chroma.py --model local-dir:MODEL --photos FOLDER

The drill simulates this without a GPU: it halves the chroma of each photo and upsamples it both ways.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from pipeline.pixels.nvjpeg import decode_jpegs, fit_tensors
from pipeline.source.formats.folder import list_images
from pipeline.source.reading import read_image

TO_YCBCR = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)  # as in JFIF


def rgb_of(luma_HW: Tensor, chroma_2HW: Tensor) -> Tensor:
    planes = torch.cat([luma_HW[None], chroma_2HW[:, : luma_HW.shape[0], : luma_HW.shape[1]]])
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(TO_YCBCR), planes).round().clamp(0, 255).to(torch.uint8)


def both_ways(image_CHW: Tensor) -> tuple[Tensor, Tensor]:
    """The image with interpolated chroma, as in libjpeg, and with repeated chroma."""
    planes = torch.einsum("ij,jhw->ihw", TO_YCBCR, image_CHW.float())
    _, height, width = planes.shape
    half = functional.avg_pool2d(functional.pad(planes[None, 1:], (0, width % 2, 0, height % 2), mode="replicate"), 2)
    smooth = functional.interpolate(half, scale_factor=2, mode="bilinear")
    return rgb_of(planes[0], smooth[0]), rgb_of(planes[0], functional.interpolate(half, scale_factor=2)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    arguments = parser.parse_args()
    for image_size in (None, 96, 48):  # with a smaller input, a photo has more resolution to spare
        encoder = Encoder(load_model(ModelSource(model=arguments.model, image_size=image_size), "fp32", "cpu"), None)
        preprocess = encoder.spec.preprocess
        cosines, spare = [], []
        for entry in list_images(arguments.photos)[0]:
            [image] = decode_jpegs([np.frombuffer(read_image(entry.uri), np.uint8)], torch.device("cpu"))
            if image is not None:
                pixels = [fit_tensors(one[None], preprocess)[0] for one in both_ways(image)]
                one, other = encoder.encode(torch.stack(pixels))
                cosines.append(one @ other)
                spare.append(min(image.shape[1:]) / preprocess.height)
        print(
            f"input {preprocess.height}: {len(cosines)} photos, {np.median(spare):.1f} times its size, "
            f"minimum cosine {min(cosines):.4f}, 1st percentile {np.quantile(cosines, 0.01):.4f}, "
            f"median {np.median(cosines):.4f}"
        )


if __name__ == "__main__":
    main()
