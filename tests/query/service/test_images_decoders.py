"""Decode processes: every kind of source, and images that hang, kill or fill a process."""

import asyncio
import contextlib
import io
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pillow_heif
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.source.reading import read_file
from query.service.images.decoders import Decoders
from query.service.images.messages import read_message, write_message
from query.service.problems import ProblemError
from query.service.settings import ServeSettings
from tests.kit.sources import PREPROCESS, listed, tar_of
from tests.kit.web_server import Handler, serving

SETTINGS = ServeSettings(store=Path("store"), max_pixels=1_000_000)
PROCESS = "query.service.images.process"


@contextlib.asynccontextmanager
async def decoding(limit_s=60.0):
    decoders = Decoders(SETTINGS, limit_s)
    try:
        yield decoders
    finally:
        await decoders.close()


def png_of(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def picture(make_image):
    return png_of(make_image(640, 400))


@pytest.fixture
def photo(picture, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(picture)
    return path.as_uri()


@pytest.fixture
def slow_site(picture):
    """A web server that answers only once `site.go` is set. `site.asked` is set when someone waits for it."""

    class Slow(Handler):
        go, asked = threading.Event(), threading.Event()

        def look(self, path):
            self.asked.set()
            self.go.wait(60)
            return 200, picture

    with serving(Slow) as url:
        Slow.url = url
        yield Slow
        Slow.go.set()


def uris_of(picture, kind, folder):
    """The URI of an image in a source of a kind."""
    if kind == "tar":
        (folder / "a.tar").write_bytes(tar_of({"one.png": picture}))
    elif kind == "parquet":
        pq.write_table(pa.table({"image": [picture], "key": ["one"]}), folder / "a.parquet")
    else:
        (folder / "one.png").write_bytes(picture)
        return [entry.uri for entry in listed(folder).entries]
    found = listed(folder / f"a.{kind}")
    return [entry.uri for file in found.files for entry in read_file(file, found.source, 0, 1)]


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_images_of_every_kind_of_source_are_shown(kind, picture, tmp_path):
    [uri] = uris_of(picture, kind, tmp_path)

    async def look():
        async with decoding() as decoders:
            return await decoders.thumbnail(uri), await decoders.original(uri)

    thumb, original = asyncio.run(look())
    assert original == (picture, "image/png")
    assert Image.open(io.BytesIO(thumb)).size == (320, 200)


def test_only_what_browsers_show_is_passed_on(make_image, tmp_path):
    pillow_heif.register_heif_opener()
    expected = {
        "JPEG": "jpeg",
        "GIF": "gif",
        "WEBP": "webp",
        "AVIF": "avif",
        "BMP": "jpeg",
        "TIFF": "jpeg",
        "HEIF": "jpeg",
    }
    for kind in expected:
        make_image(64, 48).save(tmp_path / f"{kind}.html", kind)
    (tmp_path / "SVG.html").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")

    async def look():
        async with decoding() as decoders:
            return [await decoders.original((tmp_path / f"{kind}.html").as_uri()) for kind in (*expected, "SVG")]

    *found, svg = asyncio.run(look())
    assert svg.startswith("not an image")
    for kind, (data, media_type) in zip(expected, found, strict=True):
        assert media_type == f"image/{expected[kind]}"
        is_same = data == (tmp_path / f"{kind}.html").read_bytes()
        assert is_same == (expected[kind] == kind.lower())
        assert Image.open(io.BytesIO(data)).size == (64, 48)


def test_the_thumbnail_of_a_large_jpeg_is_of_the_whole_image(make_image, tmp_path):
    make_image(4000, 1000).save(tmp_path / "wide.jpg")

    async def look():
        async with decoding() as decoders:
            return await decoders.thumbnail((tmp_path / "wide.jpg").as_uri())

    thumb = Image.open(io.BytesIO(asyncio.run(look())))
    assert thumb.size == (320, 80)
    colours = zip(thumb.resize((4, 1)).tobytes(), make_image(4000, 1000).resize((4, 1)).tobytes(), strict=True)
    assert max(abs(one - other) for one, other in colours) < 12


def test_images_on_the_web_are_read_as_the_store_names_them(picture):
    asked = []

    class Site(Handler):
        def look(self, path):
            asked.append(path)
            return (200, picture) if path == "/a.png" else (404, b"none")

    async def look(url):
        async with decoding() as decoders:
            return await decoders.original(f"{url}/a.png"), await decoders.thumbnail(f"{url}/b.png")

    with serving(Site) as url:
        original, missing = asyncio.run(look(url))
    assert original == (picture, "image/png")
    assert isinstance(missing, str)
    assert asked == ["/a.png", "/b.png"]


def test_a_reason_names_no_path(tmp_path, picture):
    (tmp_path / "a.tar").write_bytes(tar_of({"one.png": picture}))
    (tmp_path / "folder.png").mkdir()
    others = ("a.tar#member=two.png", "a.parquet#column=image&row=0", "a.png", "folder.png")
    uris = [f"{tmp_path.as_uri()}/{other}" for other in others]

    async def look():
        async with decoding() as decoders:
            return [await decoders.thumbnail(uri) for uri in uris]

    reasons = asyncio.run(look())
    assert all(isinstance(reason, str) and reason for reason in reasons)
    assert not [reason for reason in reasons if str(tmp_path) in reason]


def bomb():
    """A PNG of a few kilobytes with 100 million pixels."""
    return png_of(Image.new("1", (10_000, 10_000)))


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (bomb(), 413, "10000 x 10000 pixels, the limit is 1000000"),
        (b"", 422, "not an image (0 bytes)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "not an image"),
    ],
)
def test_a_bad_image_of_a_client_is_refused(data, status, reason):
    assert len(data) < 20_000

    async def send():
        async with decoding() as decoders:
            with pytest.raises(ProblemError, match=reason.replace("(", r"\(").replace(")", r"\)")) as error:
                await decoders.pixels(data, PREPROCESS)
            assert len(decoders.sent.processes) == 1  # it lives on
            return error.value.status

    assert asyncio.run(send()) == status


def test_an_image_that_takes_too_long_fails_alone(slow_site, photo, picture):
    async def look():
        async with decoding(limit_s=2) as decoders:
            slow = [asyncio.create_task(decoders.thumbnail(f"{slow_site.url}/{number}.png")) for number in range(3)]
            pixels_HWC = await decoders.pixels(picture, PREPROCESS)  # clients do not wait for hanging servers
            reasons = await asyncio.gather(*slow)
            return pixels_HWC.shape, reasons, await decoders.thumbnail(photo)

    shape, reasons, thumb = asyncio.run(look())
    assert shape == (8, 8, 3)
    assert reasons == ["it took longer than 2 s"] * 3
    assert isinstance(thumb, bytes)


def test_a_decoder_that_does_not_answer_is_replaced(picture):
    async def send():
        async with decoding(limit_s=2) as decoders:
            await decoders.pixels(picture, PREPROCESS)
            [process] = decoders.sent.processes
            os.kill(process.pid, signal.SIGSTOP)
            with pytest.raises(ProblemError, match="it took longer than 2 s") as error:
                await decoders.pixels(picture, PREPROCESS)
            assert not decoders.sent.processes
            assert (await decoders.pixels(picture, PREPROCESS)).any()
            return error.value.status

    assert asyncio.run(send()) == 422


def test_a_decoder_that_dies_takes_only_its_image_with_it(slow_site, photo):
    async def look():
        async with decoding() as decoders:
            dying = asyncio.create_task(decoders.thumbnail(f"{slow_site.url}/a.png"))
            await asyncio.to_thread(slow_site.asked.wait)
            [process] = decoders.stored.processes
            os.kill(process.pid, signal.SIGSEGV)
            return await dying, await decoders.thumbnail(photo)

    reason, thumb = asyncio.run(look())
    assert reason == "the process that decoded it died (signal SIGSEGV)"
    assert isinstance(thumb, bytes)


def test_a_decoder_that_died_while_it_was_idle_costs_no_image(photo):
    async def look():
        async with decoding() as decoders:
            await decoders.thumbnail(photo)
            [process] = decoders.stored.processes
            os.kill(process.pid, signal.SIGKILL)
            while process.is_alive:
                await asyncio.sleep(0.01)
            return await decoders.thumbnail(photo)

    assert isinstance(asyncio.run(look()), bytes)


def test_the_answer_for_a_client_that_went_away_reaches_no_other(slow_site, photo, picture):
    async def look():
        async with decoding() as decoders:
            gone = asyncio.create_task(decoders.original(f"{slow_site.url}/a.png"))
            await asyncio.to_thread(slow_site.asked.wait)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
            slow_site.go.set()
            return await asyncio.gather(*(decoders.thumbnail(photo) for _ in range(4)))

    assert all(Image.open(io.BytesIO(thumb)).format == "WEBP" for thumb in asyncio.run(look()))


def test_many_images_at_once_share_few_processes(photo, picture):
    async def look():
        async with decoding() as decoders:
            found = await asyncio.gather(
                *(decoders.thumbnail(photo) for _ in range(20)),
                *(decoders.pixels(picture, PREPROCESS) for _ in range(20)),
            )
            return found, len(decoders.sent.processes), len(decoders.stored.processes)

    found, *counts = asyncio.run(look())
    assert len({bytes(one) if isinstance(one, bytes) else one.tobytes() for one in found}) == 2
    assert all(1 <= count <= 4 for count in counts)


def test_closed_decoders_leave_no_process_and_start_none(slow_site, photo):
    async def look():
        async with decoding() as decoders:
            waiting = asyncio.create_task(decoders.thumbnail(f"{slow_site.url}/a.png"))
            await asyncio.to_thread(slow_site.asked.wait)
            [process] = decoders.stored.processes
            await decoders.close()
            assert not process.is_alive
            assert "died" in await waiting
            with pytest.raises(ProblemError, match="ending"):
                await decoders.thumbnail(photo)

    asyncio.run(look())


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system has no prlimit")
def test_a_decoder_has_limited_memory_and_dumps_no_core(photo):
    async def look():
        async with decoding() as decoders:
            await decoders.thumbnail(photo)
            [process] = decoders.stored.processes
            return [resource.prlimit(process.pid, kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_DATA)]

    assert asyncio.run(look()) == [(0, 0), (3 * 2**30, 3 * 2**30)]


def talking(program, *task):
    """Start a process, and give it a task."""
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert read_message(process.stdout) == ({"status": "ready"}, b"")
    write_message(process.stdin, *task)
    return process


def test_a_process_that_hangs_ends_by_itself(slow_site):
    task = {"do": "thumbnail", "uri": f"{slow_site.url}/a.png", "limit_s": 0.5}
    with talking([sys.executable, "-m", PROCESS], task) as process:
        assert process.wait() == 1


def test_what_libraries_print_is_not_taken_for_an_answer(photo):
    noisy = (
        f"import os, {PROCESS} as process\n"
        "answer = process.answer\n"
        "def shout(*task):\n"
        "    print('printed')\n"
        "    os.write(1, b'written')\n"
        "    return answer(*task)\n"
        "process.answer = shout\n"
        "process.main()\n"
    )
    task = {"do": "thumbnail", "uri": photo, "limit_s": 60}
    with talking([sys.executable, "-u", "-c", noisy], task) as process:
        header, thumb = read_message(process.stdout)
        assert (header["status"], thumb[8:12]) == ("ok", b"WEBP")
        process.stdin.close()
        assert process.wait() == 0


def test_the_process_imports_no_torch():
    program = f"import sys, {PROCESS}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert PROCESS in found
    assert not {"torch", "open_clip", "ray", "faiss", "fastapi"} & set(found)
