"""Images whose decoder is not installed: the row says what to install."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pillow_heif
import pytest

from pipeline.pixels.missing_decoder import missing_decoder
from tests.kit.pixels import encoded

# each runs in a process of its own, in which the module or the codec does not exist
PROGRAM = """
import pickle, sys
{without}
from pipeline.model.spec import Preprocess
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry
wanted = Preprocess(height=32, width=32, mean=(0, 0, 0), std=(1, 1, 1))
for name, data in pickle.load(open(sys.argv[1], "rb")).items():
    [result] = decode_batch([ImageEntry(name, "memory:" + name, len(data), 0, data=data)], wanted).results
    print(name, result.status, result.error or "", sep="|")
"""


@pytest.fixture(scope="module")
def results_without(make_image, tmp_path_factory):
    """Decodes one image of each format in a process without one of the decoders."""
    pillow_heif.register_heif_opener()
    kinds = ["HEIF", "AVIF", "WEBP", "JPEG2000", "PNG"]
    files = {kind: encoded(make_image(40, 40), kind) for kind in kinds}
    files["TIFF"] = encoded(make_image(40, 40), "TIFF", compression="tiff_lzw")
    path = tmp_path_factory.mktemp("images") / "images"
    path.write_bytes(pickle.dumps(files))

    def run(without):
        output = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(without=without), path],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ).stdout
        return {line.split("|")[0]: line.split("|")[1:] for line in output.splitlines()}

    return run


@pytest.mark.parametrize(
    ("without", "kind", "reason"),
    [
        (
            "sys.modules['pillow_heif'] = None",
            "HEIF",
            "HEIC image, and pillow-heif is missing: pip install pillow-heif",
        ),
        ("sys.modules['PIL._avif'] = None", "AVIF", 'AVIF image, and this Pillow has no AVIF: pip install "pillow>=11'),
        ("sys.modules['PIL._webp'] = None", "WEBP", "WebP image, and this Pillow has no WebP: pip install --force"),
        (
            "from PIL import Image; del Image.core.jpeg2k_decoder, Image.core.jpeg2k_encoder",
            "JPEG2000",
            "JPEG 2000 image, and this Pillow has no OpenJPEG: pip install --force",
        ),
        (
            "from PIL import Image; del Image.core.libtiff_decoder, Image.core.libtiff_encoder",
            "TIFF",
            "compressed TIFF image, and this Pillow has no libtiff: pip install --force",
        ),
    ],
)
def test_a_missing_decoder_is_named_with_what_to_install(results_without, without, kind, reason):
    results = results_without(without)
    status, error = results.pop(kind)
    assert status == "undecodable"
    assert error.startswith(reason)
    assert set(map(tuple, results.values())) == {("ok", "")}


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_every_brand_of_heic(monkeypatch, brand):
    monkeypatch.setattr("pipeline.pixels.missing_decoder.has_pillow_heif", lambda: False)
    for head in (b"ftyp" + brand + bytes(4) + b"miaf", b"ftypmp42" + bytes(4) + brand):
        assert "pip install pillow-heif" in missing_decoder(b"\0\0\0\x14" + head, ValueError())


def test_other_files_need_no_decoder():
    assert missing_decoder(b"\0\0\0\x14ftypmp42\0\0\0\0isom", ValueError()) is None
    assert missing_decoder(b"%PDF-1.7", ValueError()) is None
    assert "convert it to PNG or JPEG" in missing_decoder(b"\0\0\0\x0cJXL \r\n\x87\n", ValueError())
