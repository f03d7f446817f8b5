"""A service over two stores of drawn scenes, and a real Chromium that looks at its page.

Scopes are those of the package, so that the browser's event loop ends before other tests start one of their own.
"""

import re
import shutil

import pytest
from PIL import Image

from indexer import build_index
from pipeline.model.spec import EMBEDDED
from pipeline.scenes.collection import write_collection
from tests.kit.browse import LOST, ONLY_FIRST
from tests.kit.plain_embed import embed_plainly
from tests.kit.service import running
from tests.kit.wanted import skip_or_fail

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHAPES = ((240, 240), (240, 160), (160, 240), (240, 200))
NUM_IMAGES = 40


def pytest_collection_modifyitems(items):
    """A page that hangs fails in a minute."""
    for item in items:
        if "tests/browser/" in str(item.path):
            item.add_marker(pytest.mark.timeout(120))


@pytest.fixture(scope="package")
def scenes(tmp_path_factory):
    """Drawn scenes of several shapes, with captions."""
    folder = tmp_path_factory.mktemp("scenes")
    captions = write_collection(folder / "first", NUM_IMAGES, image_size=240)
    for number, path in enumerate(sorted((folder / "first" / "images").iterdir())):
        width, height = SHAPES[number % len(SHAPES)]
        with Image.open(path) as image:
            image.crop((240 - width, 0, 240, height)).save(path, quality=90)
    shutil.copytree(folder / "first", folder / "second")
    (folder / "second" / ONLY_FIRST).unlink()
    kept = [line for line in captions.read_text().splitlines(keepends=True) if not line.startswith(ONLY_FIRST)]
    (folder / "second" / captions.name).write_text("".join(kept))
    return folder


@pytest.fixture(scope="package")
def stores(scenes, tmp_path_factory):
    """The scenes without and with pruning."""
    folder = tmp_path_factory.mktemp("stores")
    found = []
    for name, policy, source in (("unpruned", "none", "first"), ("pruned", "balanced", "second")):
        store = embed_plainly(
            scenes / source, folder / name, EMBEDDED, policy=policy, largest=10**6,
            captions=scenes / source / "captions.tsv",
        )  # fmt: skip
        build_index(store.root)
        found.append(store.root)
    for source in ("first", "second"):
        (scenes / source / LOST).unlink()
    return found


@pytest.fixture(scope="package")
def site(stores):
    """The running service."""
    with running(*stores, flags=("--device", "cpu")) as found:
        yield found


@pytest.fixture(scope="package")
def browser():
    """A headless Chromium."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        skip_or_fail(f"found none of the browsers {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


class Complaints(list):
    """What the console said: errors, warnings, violations of the content policy."""

    def hear(self, line):
        """Note an error or a warning."""
        if line.type in ("error", "warning") and not re.search(r"/(thumbs|images)/7\?", line.location["url"]):
            self.append(line.text)

    def forget(self, part):
        """Take out what a test provokes: it has to be there."""
        assert any(part in one for one in self), (part, self)
        self[:] = [one for one in self if part not in one]


@pytest.fixture
def visit(browser, site):
    """Opens an address of the page in a browser window of its own. Complaints of the browser fail the test."""
    contexts, complaints = [], Complaints()

    def open_(address="", *, url=None, width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", complaints.hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url or site.url}/{address}")
        page.complaints = complaints
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
