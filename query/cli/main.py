"""The command line: one verb, one settings class, one story function. Nothing heavy is imported before a verb runs."""

import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import __version__
from pipeline.errors import ClipsieveError

if TYPE_CHECKING:
    from indexer.settings import IndexSettings
    from pipeline.settings.adapt import AdaptSettings
    from pipeline.settings.embed import EmbedSettings
    from pipeline.settings.store import CompactSettings, DeleteSettings, VerifySettings
    from query.settings import (
        BenchModelSettings,
        BenchPoliciesSettings,
        DemoSettings,
        DoctorSettings,
        EvaluateSettings,
        InspectSettings,
        SearchSettings,
    )


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb's summary, settings class (`module:name`) and examples; it runs the function `_<verb>` below."""

    summary: str
    settings: str
    examples: str


VERBS = {
    "demo": Verb(
        "run the whole chain on an embedded collection, without a network",
        "query.settings:DemoSettings",
        "  clipsieve demo\n  clipsieve demo --out /tmp/demo --json results.json --keep-ratio 0.5",
    ),
    "embed": Verb(
        "embed a folder of images into a store of Parquet shards",
        "pipeline.settings.embed:EmbedSettings",
        "  clipsieve embed photos --out store --model ViT-B-16 --pretrained laion2b_s34b_b88k\n"
        "  clipsieve embed photos --out store --model local-dir:/models/clip --keep-ratio 0.5\n"
        "  clipsieve embed photos --out unpruned --policy none\n"
        "  clipsieve embed --config configs/embed-vit-b-16.yaml photos --out store",
    ),
    "adapt": Verb(
        "train a low-rank adapter that gives back the recall which pruning costs",
        "pipeline.settings.adapt:AdaptSettings",
        "  clipsieve adapt --out scenes-adapter\n"
        "  clipsieve adapt --model ViT-B-16 --pretrained laion2b_s34b_b88k --policy fast \\\n"
        "      --data photos --captions captions.tsv --out adapter\n"
        "  clipsieve adapt --model local-dir:/models/clip --policy fast --data photos --label-free --out adapter\n"
        "  clipsieve adapt --model local-dir:/models/clip --from adapter --export clip-adapted",
    ),
    "index": Verb(
        "build a FAISS index over a store",
        "indexer.settings:IndexSettings",
        "  clipsieve index store",
    ),
    "verify": Verb(
        "prove that a store is whole, byte by byte and image by image",
        "pipeline.settings.store:VerifySettings",
        "  clipsieve verify store\n  clipsieve verify store --resample 100\n  clipsieve verify store --json",
    ),
    "delete": Verb(
        "delete images from a store by their keys",
        "pipeline.settings.store:DeleteSettings",
        "  clipsieve delete store --keys unwanted.txt",
    ),
    "compact": Verb(
        "take deleted and replaced rows out of a store's parts",
        "pipeline.settings.store:CompactSettings",
        "  clipsieve compact store && clipsieve index store",
    ),
    "search": Verb(
        "find images with words",
        "query.settings:SearchSettings",
        '  clipsieve search store "two dogs playing in snow" -k 10\n'
        '  clipsieve search store "a red car" --json\n'
        '  clipsieve search store "a red car" --sheet hits.png',
    ),
    "evaluate": Verb(
        "measure recall and speed, pruned against unpruned",
        "query.settings:EvaluateSettings",
        "  clipsieve evaluate --images photos --captions photos/captions.tsv\n"
        "  clipsieve evaluate --images photos --captions captions.tsv --keep-ratio 0.5 --json results.json \\\n"
        "      --model ViT-B-16-quickgelu --pretrained openai",
    ),
    "inspect": Verb(
        "show what a policy does to a model, block by block and patch by patch",
        "query.settings:InspectSettings",
        "  clipsieve inspect --model ViT-B-16 --policy balanced\n"
        "  clipsieve inspect --model ViT-L-14-336 --gmac-ratio 2\n"
        "  clipsieve inspect --model local-dir:/models/clip --image photo.jpg --picture kept.png",
    ),
    "bench model": Verb(
        "time the image tower under policies, side by side",
        "query.settings:BenchModelSettings",
        "  clipsieve bench model --model ViT-B-16 --policies reference,balanced,fast\n"
        "  clipsieve bench model --model ViT-L-14 --device cuda --dtype bf16 --compile --json results.json",
    ),
    "bench policies": Verb(
        "measure recall against speed of many policies, side by side",
        "query.settings:BenchPoliciesSettings",
        "  clipsieve bench policies configs/bench/plans/rivals.yaml --images photos --captions captions.tsv \\\n"
        "      --model ViT-B-16 --pretrained laion2b_s34b_b88k --json rivals.json --plot rivals.png",
    ),
    "doctor": Verb(
        "show versions, hardware, and what will run where",
        "query.settings:DoctorSettings",
        "  clipsieve doctor\n  clipsieve doctor --json --model local-dir:/models/clip",
    ),
}

EXIT_CODES = "0 done, 1 other error, 2 settings, 3 input, 4 store or index, 5 workers, 130 interrupted"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; every error a user can meet becomes one line and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    name, argv = _split_verb(argv)
    if name in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if name in ("-V", "--version"):
        print(f"clipsieve {__version__}")
        return 0
    try:
        return _run(name, argv)
    except ClipsieveError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was committed stays, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        return 1
    except OSError as error:  # what no part of ours has put into words
        print(f"error: {error.strerror or error}: {error.filename or 'no file named'}", file=sys.stderr)
        return 1


def _split_verb(argv: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and what comes after it."""
    for length in (2, 1):
        if " ".join(argv[:length]) in VERBS:
            return " ".join(argv[:length]), argv[length:]
    return (argv[0], argv[1:]) if argv else ("--help", [])


def _run(name: str, argv: list[str]) -> int:
    from pipeline.errors import ConfigError

    if name not in VERBS:
        raise ConfigError(f"unknown verb {name!r}; expected one of {', '.join(VERBS)}")
    from pipeline.settings.load import load_settings

    verb = VERBS[name]
    module, _, class_name = verb.settings.partition(":")
    settings_class = getattr(importlib.import_module(module), class_name)
    settings = load_settings(settings_class, name, argv, verb.examples)

    from pipeline.machine import prepare_for_torch

    prepare_for_torch()
    globals()[f"_{name.replace(' ', '_')}"](settings)
    return 0


def _demo(settings: "DemoSettings") -> None:
    from query.cli.report import print_hits, print_results
    from query.demo import run_demo

    with _Lines() as lines:
        results, answers, sheet = run_demo(settings, lines)
    print_hits(*answers[0])
    print_results(results)
    print(f"contact sheet of {len(answers)} queries: {sheet.absolute()}")
    _write_json(settings.json_path, results)


def _embed(settings: "EmbedSettings") -> None:
    if settings.dry_run:
        from pipeline.dry_run import estimate
        from query.cli.report import print_sections

        print_sections(estimate(settings))
        return
    from pipeline.embed import embed

    with _Lines() as lines:
        report = embed(settings, lambda tick: lines("embed", tick))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    failed = ", ".join(f"{count} {status}" for status, count in report.failed.items())
    ignored = f"; {report.num_ignored_files} other files ignored" if report.num_ignored_files else ""
    print(f"{report.num_ok} of {report.num_images} images embedded{f', {failed}' if failed else ''}{ignored}")
    if report.num_embedded:
        rate = report.images_per_second_end_to_end
        print(f"{rate:.1f} images/s end to end on {report.device}, after {report.start_s:.1f} s to start")
        print(report.summary["sentence"])
    print(f"store {report.store.root}: encoder {report.record.encoder.describe()}")


def _adapt(settings: "AdaptSettings") -> None:
    from pipeline.adapt import adapt, export
    from query.cli.report import print_adapter, print_entry

    if settings.adapter:
        export(settings.model_source(), settings.adapter, settings.export)
    else:
        with _Lines() as lines:
            report = adapt(settings, lines, print_entry)
        print_adapter(report)
    if settings.export:
        print(f"open_clip model: local-dir:{settings.export.absolute()}")


def _index(settings: "IndexSettings") -> None:
    from indexer.build import build_index

    manifest = build_index(settings)
    print(f"{manifest.num_vectors} vectors of {manifest.embedding_dim} indexed, {manifest.num_bytes / 1e6:.1f} MB")


def _verify(settings: "VerifySettings") -> None:
    from pipeline.errors import StoreError
    from pipeline.verify import verify
    from query.cli.report import print_verification

    with _Lines() as lines:
        report = verify(settings, lambda tick: lines("verify", tick))
    if settings.as_json:
        print(json.dumps(asdict(report), ensure_ascii=False))
    else:
        print_verification(report)
    if report.findings:
        raise StoreError(f"the store is not whole, {len(report.findings)} findings, first: {report.findings[0]}")


def _delete(settings: "DeleteSettings") -> None:
    from pipeline.delete import delete

    report = delete(settings)
    before = f"; {report.num_before} of the keys were deleted before" if report.num_before else ""
    print(f"{report.num_rows} images of {report.num_keys} keys deleted{before}")
    print("search leaves them out from now on, the index need not be built again; `clipsieve compact` frees the space")


def _compact(settings: "CompactSettings") -> None:
    from pipeline.compact import compact

    report = compact(settings)
    print(f"{report.num_rows} rows taken out of {report.num_parts} parts, {report.num_bytes / 1e6:.1f} MB freed")
    if report.num_parts:
        print(f"an index is of the old parts: run `clipsieve index {settings.store}`")


def _search(settings: "SearchSettings") -> None:
    from query.cli.report import print_hits
    from query.pictures.sheet import write_sheet
    from query.searcher import search

    [hits] = search(settings.store, [settings.query], settings.k, settings.partial)
    if settings.as_json:
        print(json.dumps({"query": settings.query, "hits": [asdict(hit) for hit in hits]}, ensure_ascii=False))
    else:
        print_hits(settings.query, hits)
    if settings.sheet:
        write_sheet(settings.sheet, [(settings.query, hits)])


def _evaluate(settings: "EvaluateSettings") -> None:
    from query.cli.report import print_results
    from query.evaluate import evaluate

    with _Lines() as lines:
        results = evaluate(settings, lines)
    if results["warning"]:
        print(f"warning: {results['warning']}", file=sys.stderr)
    print_results(results)
    _write_json(settings.json_path, results)


def _inspect(settings: "InspectSettings") -> None:
    from query.cli.report import print_inspection
    from query.inspect import inspect

    inspection = inspect(settings)
    if settings.as_json:
        print(json.dumps(inspection))
    else:
        print_inspection(inspection)
    if settings.image:
        print(f"kept patches: {settings.picture.absolute()}", file=sys.stderr)


def _bench_model(settings: "BenchModelSettings") -> None:
    from query.bench.model import bench_model
    from query.cli.report import print_bench

    results = bench_model(settings)
    print_bench(results)
    _write_json(settings.json_path, results)


def _bench_policies(settings: "BenchPoliciesSettings") -> None:
    from query.bench.policies import bench_policies
    from query.cli.report import print_points

    with _Lines() as lines:
        results = bench_policies(settings, lines)
    print_points(results)
    _write_json(settings.json_path, results)
    if settings.plot:
        from query.pictures.plot import plot_points

        plot_points(settings.plot, results)


def _doctor(settings: "DoctorSettings") -> None:
    from query.cli.report import print_sections
    from query.doctor import examine

    sections = examine(settings.model, settings.images)
    if settings.as_json:
        print(json.dumps(sections, indent=2))
    else:
        print_sections(sections)


class _Lines:
    """A progress line per condition, one after the other."""

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._open.values():
            line.__exit__()

    def __call__(self, name: str, tick: Any) -> None:
        if name not in self._open:
            from pipeline.monitor.progress import ProgressLine

            self.__exit__()
            self._open = {name: ProgressLine(name).__enter__()}
        self._open[name](tick)


def _write_json(path: Path | None, results: dict[str, Any]) -> None:
    if path:
        from pipeline.durable.atomic import write_json

        write_json(path, results)


def _usage() -> str:
    lines = "\n".join(f"  {name:<15} {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: clipsieve VERB ...\n\n"
        "Find images with words: embed them with a pruned CLIP, index, search, measure.\n\n"
        f"{lines}\n\nclipsieve VERB --help shows a verb's settings and examples. Exit codes: {EXIT_CODES}."
    )
