"""JPEGs without end mark: images if all their pixels are there, failures if not."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.pixels.decode import decode_all_but_jpegs, decode_batch
from pipeline.source.entry import ImageEntry
from tests.kit.containers import jpeg_segment, jpeg_with
from tests.kit.pixels import encoded, preprocess

KINDS = {
    "usual": {},
    "full chroma": {"subsampling": 0, "quality": 100},
    "own tables": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "many restarts": {"restart_marker_blocks": 2},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
}


def decoded(data, wanted=None):
    wanted = wanted or preprocess(64, 64, resize_mode="longest")
    batch = decode_batch([ImageEntry("image", "memory:image", len(data), 0, data=data)], wanted)
    return batch.pixels[0], batch.results[0]


def assert_truncated(data, wanted=None):
    pixels, record = decoded(data, wanted)
    assert (record.status, record.error) == (
        "undecodable",
        "the file is truncated: it ends before the last pixels of its JPEG",
    )
    assert not pixels.any()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_end_mark_is_missing(make_image, kind, mode):
    data = encoded(make_image(64, 64).convert(mode), "JPEG", **KINDS[kind])
    for cut in (data[:-2], data[:-1], data[:-2] + bytes(5000)):
        pixels, record = decoded(cut)
        assert (record.status, record.error, record.width, record.height) == ("ok", None, 64, 64)
        np.testing.assert_array_equal(pixels, decoded(data)[0])


@pytest.mark.parametrize("padding", [b"", bytes(5000)], ids=["cut", "download with zeros at its end"])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_missing(make_image, kind, padding):
    data = encoded(make_image(64, 64), "JPEG", **KINDS[kind])
    for num_lost in (4, 5, 6, 7, 8, 20, 100, 300):
        assert_truncated(data[:-num_lost] + padding)


@pytest.mark.parametrize("kind", ["restarts", "many restarts", "progressive with restarts"])
def test_a_file_that_ends_where_a_restart_mark_was(make_image, kind):
    data = encoded(make_image(64, 64), "JPEG", **KINDS[kind])
    marks = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert marks
    for mark in marks:
        assert_truncated(data[:mark])
        assert_truncated(data[: mark + 2])


def test_a_progressive_file_that_ends_between_two_scans(make_image):
    # what is there decodes to a complete image, but of lower quality
    data = encoded(make_image(64, 64), "JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    assert len(scans) > 5
    for scan in scans[1:]:
        before = data.rindex(b"\xff\xc4", 0, scan)  # its table
        with Image.open(io.BytesIO(data[:before] + b"\xff\xd9")) as image:
            image.load()
        assert_truncated(data[:before])


def test_a_cut_in_pixels_that_are_cropped_away_or_hidden_by_a_draft(make_image):
    data = encoded(make_image(900, 300), "JPEG")
    assert_truncated(data[: len(data) * 9 // 10], preprocess(32, 32))


def test_damaged_metadata_and_no_end_mark(make_image):
    good = encoded(make_image(64, 64), "JPEG")
    data = jpeg_with(make_image(64, 64), jpeg_segment(0xE2, b"ICC_PROFILE\0"), jpeg_segment(0xE5, bytes(60), 90))
    pixels, record = decoded(data[:-2])
    assert record.status == "ok"
    np.testing.assert_array_equal(pixels, decoded(good)[0])
    assert decoded(data[:-20])[1].status == "undecodable"


def test_more_data_after_the_end_mark(make_image):
    data = encoded(make_image(64, 64), "JPEG")
    for more in (b"\0" * 100, b"video", data[: len(data) // 2]):
        pixels, record = decoded(data + more)
        assert record.status == "ok"
        np.testing.assert_array_equal(pixels, decoded(data)[0])


def test_the_torchvision_decoder_leaves_these_files_to_pillow(make_image):
    data = encoded(make_image(64, 64), "JPEG", subsampling=0)
    entries = [ImageEntry("image", "memory:image", 0, 0, data=data[:-lost]) for lost in (2, 20)]
    batch = decode_all_but_jpegs(entries, preprocess(decoder="torchvision"))
    assert batch.jpegs == {}
    assert [result.status for result in batch.results] == ["ok", "undecodable"]


def test_real_photos(shared):
    paths = sorted((shared / "data" / "photos-native").glob("*.JPEG"))[:40]
    wanted = preprocess(224, 224)
    for path in paths:
        data = path.read_bytes()
        assert data.endswith(b"\xff\xd9")
        pixels, record = decoded(data[:-2], wanted)
        assert record.status == "ok"
        np.testing.assert_array_equal(pixels, decoded(data, wanted)[0])
        assert_truncated(data[: len(data) - 40], wanted)
