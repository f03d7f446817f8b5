"""Decoding: the same pixels as open_clip, and a reason for each file that is not an image."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.model.spec import Preprocess
from pipeline.pixels.decode import decode_batch
from pipeline.pixels.opening import to_rgb
from pipeline.pixels.resize import fit
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.folder import list_images
from pipeline.source.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES
from tests.kit.pixels import encoded, open_clip_pixels, pixels_and_results, preprocess


def decode_file(path, wanted=None, **more):
    entry = ImageEntry(key=path.name, uri=path.absolute().as_uri(), num_bytes=0, mtime_ns=0)
    pixels, [record] = pixels_and_results(decode_batch([entry], wanted or preprocess(), **more))
    return pixels[0], record


@pytest.fixture
def decode(tmp_path):
    """Decodes bytes as a file with the given name."""

    def run(name, data, **more):
        (tmp_path / name).write_bytes(data)
        return decode_file(tmp_path / name, **more)

    return run


def assert_failed(pixels, record, status, reason):
    assert record.status == status
    assert reason in record.error
    assert "\n" not in record.error
    assert not pixels.any()


# --- modes and containers


def test_batch_keeps_order_and_slots(make_image, tmp_path):
    for number in (0, 2):
        make_image(40, 40, number).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_text("no image")
    pixels, records = pixels_and_results(decode_batch(list_images(tmp_path)[0], preprocess()))
    assert pixels.shape == (3, 32, 32, 3)
    assert pixels.dtype == np.uint8
    assert [(record.key, record.status) for record in records] == [
        ("0.png", "ok"),
        ("1.png", "undecodable"),
        ("2.png", "ok"),
    ]
    np.testing.assert_array_equal(pixels[2], np.asarray(fit(make_image(40, 40, 2), preprocess())))


def test_a_result_has_size_and_hash(decode, make_image):
    data = encoded(make_image(60, 40), "PNG")
    _, record = decode("a.png", data)
    assert (record.width, record.height, record.status, record.error) == (60, 40, "ok", None)
    assert record.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotation_is_applied(decode, make_image, orientation):
    upright = make_image(60, 40)
    # what a camera stores when it is held so that the image must be rotated by this angle, clockwise
    turned = upright.rotate({3: 180, 6: 90, 8: -90}[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, record = decode("photo.png", encoded(turned, "PNG", exif=exif))
    assert (record.width, record.height) == (60, 40)
    np.testing.assert_array_equal(pixels, np.asarray(fit(upright, preprocess())))


def test_damaged_exif_is_ignored(decode, make_image):
    pixels, record = decode("photo.png", encoded(make_image(60, 40), "PNG", exif=b"garbage"))
    assert record.status == "ok"
    np.testing.assert_array_equal(pixels, np.asarray(fit(make_image(60, 40), preprocess())))


def test_sixteen_bit_grey_is_scaled_not_clipped(decode):
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    pixels, record = decode("grey16.png", encoded(Image.fromarray(ramp), "PNG"))
    assert record.status == "ok"
    np.testing.assert_array_equal(pixels[..., 0], np.round(ramp / 257).astype(np.uint8))


def test_palette_with_alpha_keeps_its_colours(decode):
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    pixels, record = decode("palette.png", encoded(palette, "PNG", transparency=bytes([255, 0])))
    assert record.status == "ok"
    assert (pixels == [10, 200, 30]).all()  # alpha is dropped, even where it is zero


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "AVIF", "HEIF", "GIF", "PNG"])
def test_formats(decode, make_image, kind):
    pillow_heif.register_heif_opener()  # to write one; decoding registers it by itself
    image = make_image(60, 40)
    pixels, record = decode("picture.any", encoded(image, kind))
    assert (record.status, record.width, record.height) == ("ok", 60, 40)
    expected = np.asarray(fit(image, preprocess())).astype(np.int16)
    assert np.abs(pixels - expected).mean() < (1 if kind in ("BMP", "TIFF", "PNG") else 20)


def test_first_frame_of_an_animation(decode):
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    pixels, record = decode("animated.gif", encoded(red, "GIF", save_all=True, append_images=[blue]))
    assert record.status == "ok"
    assert (pixels == [255, 0, 0]).all()


def test_grey_and_cmyk(decode):
    pixels, record = decode("grey.jpg", encoded(Image.new("L", (40, 40), 90), "JPEG"))
    assert record.status == "ok"
    assert (pixels == 90).all()
    pixels, record = decode("cmyk.jpg", encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG"))
    assert record.status == "ok"
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to([255, 0, 0], pixels.shape), atol=3)


def test_one_pixel_image(decode):
    pixels, record = decode("dot.png", encoded(Image.new("RGB", (1, 1), (7, 8, 9)), "PNG"))
    assert (record.status, record.width, record.height) == ("ok", 1, 1)
    assert (pixels == [7, 8, 9]).all()


# --- files that are not images


@pytest.mark.parametrize(
    "data", [b"", b"just text\n", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "pdf", "png"]
)
def test_not_an_image(decode, data):
    assert_failed(*decode("x.jpg", data), "undecodable", f"not an image ({len(data)} bytes)")


def test_postscript_is_not_run(decode, make_image):
    # Pillow reads it by starting Ghostscript
    assert_failed(*decode("x.jpg", encoded(make_image(8, 8), "EPS")), "undecodable", "not an image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(decode, make_image, kind):
    data = encoded(make_image(100, 100), kind)
    pixels, record = decode("x.jpg", data[: len(data) // 2])
    assert_failed(pixels, record, "undecodable", "truncated")
    assert record.sha256 is not None


def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    assert_failed(*decode_file(tmp_path / "x.jpg"), "unreadable", "is a named pipe")


def test_links_and_folders(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "folder.jpg").mkdir()
    assert_failed(*decode_file(tmp_path / "dangling.jpg"), "unreadable", "No such file")
    assert_failed(*decode_file(tmp_path / "folder.jpg"), "unreadable", "directory")


def test_refused_files_leave_no_descriptor_open(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("folder.jpg", "pipe.jpg"):
        decode_file(tmp_path / name)
    open_files = [descriptor.readlink() for descriptor in Path("/proc/self/fd").iterdir() if descriptor.is_symlink()]
    assert open_files
    assert not [path for path in open_files if path.is_relative_to(tmp_path)]


@pytest.mark.parametrize("name", ["snö 雪.png", "two\nlines.png", "percent%20#?.png", os.fsdecode(b"caf\xe9.png")])
def test_strange_names(tmp_path, make_image, name):
    make_image(40, 40).save(tmp_path / "plain.png")
    (tmp_path / "plain.png").rename(tmp_path / name)
    [entry], _ = list_images(tmp_path)
    [record] = decode_batch([entry], preprocess()).results
    assert record.status == "ok"
    for text in (record.key, record.uri):
        assert text.encode()  # Parquet takes UTF-8 only


# --- images that are too large


def test_pixel_limit_is_exact(decode, make_image):
    data = encoded(make_image(50, 40), "PNG")
    assert decode("x.png", data, max_pixels=2000)[1].status == "ok"
    pixels, record = decode("x.png", data, max_pixels=1999)
    assert_failed(pixels, record, "too_large", "50 x 40 pixels, the limit is 1999")
    assert (record.width, record.height) == (50, 40)


def test_a_low_pixel_limit_does_not_refuse_images_smaller_than_the_tower(decode, make_image):
    assert decode("x.png", encoded(make_image(10, 10), "PNG"), max_pixels=500)[1].status == "ok"


@pytest.mark.parametrize("side", [2**31, 2**32 - 1])
def test_a_side_that_does_not_fit_the_columns(decode, side):
    pixels, record = decode("x.ppm", b"P6\n%d 1\n255\n" % side)
    assert_failed(pixels, record, "too_large", f"{side} x 1 pixels, the limit is")
    assert (record.width, record.height) == (None, None)


def icon(image, width, height):
    """A file of one icon, whose directory has the given size."""
    data = encoded(image, "PNG")
    return struct.pack("<3H4B2H2I", 0, 1, 1, width, height, 0, 0, 1, 32, len(data), 22) + data


@pytest.mark.filterwarnings("ignore:::PIL")  # as in a decode task
def test_an_icon_whose_directory_is_wrong(decode, make_image):
    pixels, record = decode("x.ico", icon(make_image(60, 40), 16, 32))
    assert (record.status, record.width, record.height) == ("ok", 60, 40)
    np.testing.assert_array_equal(pixels, np.asarray(fit(make_image(60, 40), preprocess())))
    data = icon(make_image(60, 40), 16, 16)
    assert decode("x.ico", data, max_pixels=2400)[1].status == "ok"
    pixels, record = decode("x.ico", data, max_pixels=2399)
    assert_failed(pixels, record, "too_large", "an image inside it has more than 2399 pixels")


@pytest.mark.parametrize(("width", "height"), [(2**40, 5), (2**63, 2**63), (2**64 - 1, 1)])
def test_a_size_that_fits_no_column(decode, width, height):
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: 8}
    tags = b"".join(struct.pack("<HHQQ", tag, 16, 1, value) for tag, value in values.items())
    data = b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, len(values)) + tags + bytes(8)  # a BigTIFF
    pixels, record = decode("x.tif", data)
    assert_failed(pixels, record, "too_large", f"{width} x {height} pixels, the limit is")
    assert (record.width, record.height) == (None, None)


def write_png_bomb(path, side):
    """Write a valid PNG of side x side grey pixels; with side 30,000, a megabyte on disk."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(1 + side)
    squeeze = zlib.compressobj(1)
    pixels = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_a_bomb_is_refused_without_being_decompressed(tmp_path):
    write_png_bomb(tmp_path / "small.png", 40)
    assert decode_file(tmp_path / "small.png")[1].status == "ok"  # the writer makes real images
    write_png_bomb(tmp_path / "bomb.png", 30_000)
    # in a separate process, to measure its peak memory
    program = """
import sys
from pathlib import Path
from pipeline.pixels.decode import decode_batch
from pipeline.source.formats.folder import list_images
from pipeline.model.spec import Preprocess

def peak_mib():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

entries = list_images(Path(sys.argv[1]))[0]
wanted = Preprocess(height=32, width=32, mean=(0, 0, 0), std=(1, 1, 1))
decode_batch(entries[1:], wanted)
before = peak_mib()
[record] = decode_batch(entries[:1], wanted).results
print(record.key, record.status, int(peak_mib() - before), record.error, sep="|")
"""
    output = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    key, status, grown_mib, error = output.strip().split("|")
    assert (key, status) == ("bomb.png", "too_large")
    assert error == f"30000 x 30000 pixels, the limit is {DEFAULT_MAX_PIXELS}"
    assert int(grown_mib) < 50  # decompressed, it would take 858 MiB


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_extreme_strip(decode, size):
    data = encoded(Image.new("RGB", size, (1, 2, 3)), "PNG")
    wanted = preprocess(224, 224)
    assert_failed(*decode("x.png", data, wanted=wanted), "too_large", f"{size[0]} x {size[1]} would exceed")
    for mode in ("longest", "squash"):  # these never scale it up
        pixels, record = decode("x.png", data, wanted=wanted.model_copy(update={"resize_mode": mode}))
        assert record.status == "ok"
        assert pixels.any()


def test_float_image_in_the_unit_interval_is_not_black(tmp_path):
    Image.fromarray(np.full((20, 20), 0.5, dtype=np.float32)).save(tmp_path / "half.tif")
    Image.fromarray(np.full((20, 20), 200, dtype=np.float32)).save(tmp_path / "bytes.tif")
    for name, grey in (("half.tif", 127), ("bytes.tif", 200)):
        with Image.open(tmp_path / name) as image:
            assert to_rgb(image).getpixel((5, 5)) == (grey, grey, grey)


def test_a_file_too_large_for_memory_is_refused_unread(tmp_path):
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    [entry], _ = list_images(tmp_path)
    [record] = decode_batch([entry], Preprocess(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1))).results
    assert record.status == "too_large"
    assert str(MAX_FILE_BYTES + 1) in record.error


# --- drafts: large JPEGs are decoded at a fraction of their size


def large_jpeg(make_image, width, height, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = make_image(width // 16, height // 16, 3)
    return encoded(small.resize((width, height), Image.Resampling.BICUBIC), "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("target", [(32, 32), (24, 40)])
def test_a_draft_gives_nearly_the_same_pixels(decode, make_image, target, resize_mode, orientation):
    wanted = preprocess(*target, resize_mode=resize_mode)
    data = large_jpeg(make_image, 1203, 805, orientation)
    pixels, record = decode("large.jpg", data, wanted=wanted)
    upright = to_rgb(Image.open(io.BytesIO(data)))
    assert (record.width, record.height) == upright.size == ((1203, 805) if orientation == 1 else (805, 1203))
    reference = open_clip_pixels(upright, wanted).astype(np.int16)
    one_pixel_off = np.abs(reference[:, 1:] - reference[:, :-1]).mean()
    assert np.abs(pixels - reference).mean() < one_pixel_off / 4


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((127, 127), (127, 127)),  # half of it would be less than twice the target
        ((128, 128), (64, 64)),
        ((255, 128), (128, 64)),
        ((256, 256), (64, 64)),
        ((511, 700), (128, 175)),
        ((512, 512), (64, 64)),
        ((4000, 3000), (500, 375)),
    ],
)
def test_a_draft_is_at_least_twice_the_target(decode, make_image, monkeypatch, size, decoded):
    data = encoded(make_image(*size), "JPEG")
    sizes = []
    original = JpegImageFile.load

    def load(image):
        sizes.append(image.size)
        return original(image)

    monkeypatch.setattr(JpegImageFile, "load", load)
    _, record = decode("photo.jpg", data)
    assert sizes[0] == decoded
    assert (record.width, record.height) == size
