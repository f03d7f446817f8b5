"""Ray workers on a GPU: `embed` commits what a CPU would, up to rounding, with either decoder."""

import shutil

import numpy as np
import pytest

from pipeline.embedding import embed
from pipeline.settings.embed import EmbedSettings
from pipeline.store.parts import embeddings_of, read_part
from tests.kit.pixels import encoded

pytestmark = pytest.mark.gpu


@pytest.fixture
def rows(photos, make_image, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for number in range(4):  # decoded on the GPU with --decoder torchvision
        data = encoded(make_image(60, 50, 40 + number), "JPEG", subsampling=0, quality=95)
        (folder / f"full-{number}.jpg").write_bytes(data)
    (folder / "broken.jpg").write_bytes(b"not a JPEG")

    def run(**settings):
        out = tmp_path / "-".join(map(str, settings.values()))
        report = embed(EmbedSettings(source=str(folder), out=out, precision="fp32", batch_size=4, **settings))
        assert (report.num_images, report.failed) == (17, {"undecodable": 1})
        ids, vectors = embeddings_of(read_part(report.store.part_path(0)))
        return report, ids, vectors

    return run


@pytest.mark.parametrize("decoder", ["pillow", "torchvision"])
def test_embed_on_a_gpu_commits_the_rows_of_a_cpu(rows, decoder):
    report, ids, vectors = rows(device="cuda", decoder=decoder)
    assert report.device not in ("cpu", "")
    _, expected_ids, expected = rows(device="cpu", decoder="pillow")
    assert (ids == expected_ids).all()
    assert np.einsum("be,be->b", vectors, expected).min() > (0.9999 if decoder == "pillow" else 0.998)
