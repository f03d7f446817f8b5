"""open_clip's image preprocessing, as the reference for ours."""

from collections.abc import Callable

from open_clip import image_transform
from PIL import Image
from torch import Tensor

from pipeline.model.spec import Preprocess


def reference_transform(preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """open_clip's inference transform for a model: maps an image to normalised float32 [C, H, W]."""
    return image_transform(
        (preprocess.height, preprocess.width),
        is_train=False,
        mean=preprocess.mean,
        std=preprocess.std,
        resize_mode=preprocess.resize_mode,
        interpolation=preprocess.interpolation,
        fill_color=preprocess.fill_color,
    )
