"""`clipsieve demo`: the whole chain on drawn scenes with the built-in model, without a network."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.errors import InputError
from pipeline.model.spec import EMBEDDED
from pipeline.monitor.progress import Tick
from pipeline.scenes.collection import write_collection
from pipeline.source.formats.captions import read_captions
from query.evaluate import evaluate
from query.hits.hits import Hits
from query.pictures.sheet import write_sheet
from query.searcher import Searcher
from query.settings import DemoSettings, EvaluateSettings

NUM_QUERIES = 6
HITS_PER_QUERY = 6
_MARKER = ".clipsieve-demo"


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo found: the results of `evaluate`, and a few queries with their hits and the image each describes."""

    results: dict[str, Any]
    answers: list[tuple[str, Hits]]
    right_keys: list[str]
    sheet: Path
    stores: list[Path]
    """Unpruned, pruned, and pruned with an adapter."""
    device: Literal["auto", "cpu"]
    """Where they are searched."""

    def write_sheet(self) -> list[str]:
        """Write the contact sheet of the queries. Returns warnings: what could not be drawn.

        Raises:
            StoreError: If it cannot be written.
        """
        return write_sheet(self.sheet, self.answers, self.right_keys)


def run_demo(settings: DemoSettings, on_tick: Callable[[str, Tick], None] = lambda name, tick: None) -> Demo:
    """Draw scenes and embed them unpruned, pruned, and pruned with an adapter; then index, search and measure.

    Raises:
        InputError: If `out` holds files but no demo made it, or if it cannot be written.
    """
    out = settings.out
    _clear(out)
    captions = write_collection(out / "scenes", settings.num_images, split="test")
    results = evaluate(
        EvaluateSettings(
            images=captions.parent,
            captions=captions,
            out=out / "stores",
            keep_ratio=settings.keep_ratio,
            adapter=EMBEDDED,
            precision=settings.precision,
            device=settings.device,
            ray_address=settings.ray_address,
        ),
        on_tick,
    )
    stores = [out / "stores" / condition["name"] for condition in results["conditions"]]
    for store in stores:
        build_index(IndexSettings(store=store))
    asked = dict(list(read_captions(captions).items())[:: settings.num_images // NUM_QUERIES][:NUM_QUERIES])
    queries = [texts[0] for texts in asked.values()]
    # not cuda: FAISS may see no GPU where torch does
    device: Literal["auto", "cpu"] = "cpu" if settings.device == "cpu" else "auto"
    with Searcher.open(stores[-1], device=device) as searcher:
        answers = list(zip(queries, searcher.search_many(queries, HITS_PER_QUERY), strict=True))
    for condition, name in zip(results["conditions"], ("none", "pruned", "pruned+adapter"), strict=True):
        condition["name"] = name
    return Demo(results, answers, list(asked), out / "sheet.png", stores, device)


def _clear(out: Path) -> None:
    """Make `out` an empty demo folder. Its marker file guards against deleting anything that no demo wrote."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not (out / _MARKER).exists():
            raise InputError(f"{out} is not empty and was not made by `clipsieve demo`; choose another --out")
        (out / _MARKER).touch()
        for name in ("scenes", "stores"):
            shutil.rmtree(out / name, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
