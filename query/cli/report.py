"""Tables for people. Home of `rich` tables; prints to standard output."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from query.searcher import Hit

if TYPE_CHECKING:
    from pipeline.adapt import AdaptReport
    from pipeline.resample import Resample
    from pipeline.verify import VerifyReport


def print_results(results: dict[str, Any]) -> None:
    """Print an evaluation: one row a condition, and under each pruned one the paired difference."""
    table = Table(title=_title(results), title_justify="left", caption=_caption(results), caption_justify="left")
    for heading in ("condition", "t2i R@1", "R@5", "R@10", "i2t R@1", "R@5", "R@10"):
        table.add_column(heading, justify="left" if heading == "condition" else "right")
    for heading in ("images/s", "end to end", "GMACs", "cosine"):
        table.add_column(heading, justify="right")
    for condition in results["conditions"]:
        end_to_end = condition["images_per_second_end_to_end"]
        table.add_row(
            condition["name"],
            *[f"{100 * value:.1f}" for value in condition["metrics"].values()],
            f"{condition['images_per_second']:.1f}",
            f"{end_to_end:.1f}" if end_to_end else "-",
            f"{condition['gmacs']:.3f}",
            f"{condition['cosine_to_unpruned']:.4f}",
        )
        if "deltas" in condition:
            speedup = condition["speedup"]
            table.add_row(
                "  difference",
                *[f"{100 * delta['value']:+.1f}" for delta in condition["deltas"].values()],
                f"{speedup['measured']:.2f}x",
                "",
                f"{speedup['theoretical']:.2f}x",
                style="bold",
            )
            intervals = [delta["ci95"] for delta in condition["deltas"].values()]
            table.add_row("  95 %", *[f"{100 * low:+.1f}..{100 * high:+.1f}" for low, high in intervals], style="dim")
        if "metrics_of_bare_texts" in condition:
            values = condition["metrics_of_bare_texts"].values()
            table.add_row("  unadapted texts", *[f"{100 * value:.1f}" for value in values])
    _console().print(table)
    for recovery in results.get("recovery", []):
        goals = {"of_none": "the unpruned model", "of_none+control": "the unpruned control"}
        shares = [f"{_share(recovery[key])} towards {goal}" for key, goal in goals.items() if key in recovery]
        _console().print(f"{recovery['policy']}: the adapter gives back {', '.join(shares)} (t2i R@1 + R@5 + R@10)")


def _share(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "nothing, for nothing was lost,"
    low, high = share["ci95"]
    return f"{100 * share['value']:.0f} % (95 %: {100 * low:.0f}..{100 * high:.0f})"


def print_entry(entry: dict[str, Any]) -> None:
    """Print a line of a training's log."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in ("step", "held_out"))
    held_out = ", ".join(f"{_heading(name)} {_measure(name, value)}" for name, value in entry["held_out"].items())
    print(f"step {entry['step']}: {losses}; held-out {held_out}", flush=True)


def print_adapter(report: "AdaptReport") -> None:
    """Print what an adapter reaches on its held-out images: under each policy, before and after."""
    results = report.results
    measures = list(next(iter(results["after"].values())))
    title = f"{report.adapter}, on held-out images, before -> after"
    table = Table("policy", title=title, title_justify="left")
    for measure in measures:
        table.add_column(_heading(measure), justify="right")
    for name, after in results["after"].items():
        before = results["before"][name]
        table.add_row(name, *[f"{_measure(key, before[key])} -> {_measure(key, after[key])}" for key in measures])
    _console().print(table)
    if report.was_there:
        _console().print("the adapter was there already; nothing was trained")


def _heading(measure: str) -> str:
    return measure.replace("image_retrieval_recall", "t2i R")


def _measure(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "cosine" else f"{100 * value:.1f}"


def print_inspection(inspection: dict[str, Any]) -> None:
    """Print a policy's account: one row a block, and what it comes to."""
    height, width = inspection["image_size"]
    title = f"{inspection['model']} at {height} x {width}, policy {inspection['policy']['name']}"
    table = Table(title=title, title_justify="left", show_footer=True)
    totals = {
        "cut GMACs": f"{sum(block['cut_gmacs'] for block in inspection['blocks']):.3f}",
        "GMACs": f"{inspection['gmacs']:.3f}",
        "unpruned": f"{inspection['unpruned_gmacs']:.3f}",
        "ratio": f"{inspection['theoretical']:.2f}x",
    }
    for heading in ("block", "patches", "tokens", "cut GMACs", "GMACs", "unpruned", "ratio"):
        table.add_column(heading, totals.get(heading, "tower" if heading == "block" else ""), justify="right")
    before = inspection["grid"][0] * inspection["grid"][1]
    for block in inspection["blocks"]:
        table.add_row(
            str(block["block"]),
            str(block["patches"]),
            str(block["tokens"]),
            f"{block['cut_gmacs']:.4f}" if block["cut_gmacs"] else "",
            f"{block['gmacs']:.4f}",
            f"{block['unpruned_gmacs']:.4f}",
            f"{block['unpruned_gmacs'] / block['gmacs']:.2f}x",
            style="bold" if block["patches"] != before else None,
        )
        before = block["patches"]
    _console().print(table)


def print_bench(results: dict[str, Any]) -> None:
    """Print side-by-side timings: one row a condition."""
    environment, (height, width) = results["environment"], results["image_size"]
    compiled = ", compiled" if results["compiled"] else ""
    title = f"{results['model']} at {height} x {width}, {results['precision']}, batch {results['batch_size']}{compiled}"
    table = Table(title=title, title_justify="left", caption=_timed(environment), caption_justify="left")
    headings = (
        "images/s",
        "range",
        "speed-up",
        "GMACs",
        "theoretical",
        "measured / theoretical",
        "peak MB",
        "peak ratio",
    )
    table.add_column("condition")
    for heading in headings:
        table.add_column(heading, justify="right")
    unpruned = next(condition for condition in results["conditions"] if condition["name"] == "none")
    for condition in results["conditions"]:
        low, high = condition["range"]
        table.add_row(
            condition["name"],
            f"{condition['images_per_second']:.1f}",
            f"{low:.1f}..{high:.1f}",
            f"{condition['measured']:.2f}x",
            f"{condition['gmacs']:.3f}",
            f"{condition['theoretical']:.2f}x",
            f"{condition['measured'] / condition['theoretical']:.2f}",
            f"{condition['peak_bytes'] / 1e6:.0f}",
            f"{condition['peak_bytes'] / unpruned['peak_bytes']:.2f}",
        )
    _console().print(table)


def print_points(results: dict[str, Any]) -> None:
    """Print recall and speed of many policies, series by series."""
    environment = results["environment"]
    title = f"{results['model']} on {results['dataset']}: {results['num_images']} images; text->image recall in %"
    caption = _timed(environment, f"{environment['precision']}, ")
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in ("series", "policy"):
        table.add_column(heading)
    for heading in ("R@1", "R@5", "R@10", "sum", "images/s", "speed-up", "GMACs", "theoretical"):
        table.add_column(heading, justify="right")
    for point in results["points"]:
        recall = [100 * point["metrics"][f"image_retrieval_recall@{k}"] for k in (1, 5, 10)]
        table.add_row(
            point["series"],
            point["name"],
            *[f"{value:.1f}" for value in (*recall, sum(recall))],
            f"{point['images_per_second']:.1f}",
            f"{point['measured']:.2f}x",
            f"{point['gmacs']:.3f}",
            f"{point['theoretical']:.2f}x",
        )
    _console().print(table)
    equal = Table(title="text->image R@1 + R@5 + R@10 in % at equal measured speed", title_justify="left")
    equal.add_column("series")
    for speed in next(iter(results["at_equal_speed"].values())):
        equal.add_column(speed, justify="right")
    for series, totals in results["at_equal_speed"].items():
        equal.add_row(series, *["-" if total is None else f"{100 * total:.1f}" for total in totals.values()])
    _console().print(equal)


def print_hits(query: str, hits: list[Hit]) -> None:
    """Print the answers to one query."""
    table = Table(title=query, title_justify="left")
    for heading, justify in (("rank", "right"), ("score", "right"), ("key", "left"), ("caption", "left")):
        table.add_column(heading, justify=justify, overflow="fold")
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.4f}", _printable(hit.key), _printable(hit.caption or ""))
    _console().print(table)


def print_sections(sections: dict[str, dict[str, Any]]) -> None:
    """Print nested facts, a heading and `name value` lines each."""
    console = _console()
    for title, facts in sections.items():
        console.print(f"[bold]{title}[/bold]")
        for name, value in facts.items():
            console.print(f"  {name:<22} {value}", markup=False, highlight=False)


def print_verification(report: "VerifyReport") -> None:
    """Print what a store holds, and all that is wrong with it."""
    failed = "".join(f", {count} {status}" for status, count in sorted(report.failed.items()))
    facts = {
        "whole shards": f"{report.num_whole} of {report.num_shards}, {report.num_bytes / 1e6:.1f} MB",
        "rows": f"{report.num_images}: {report.num_ok} ok{failed}",
        "deleted or replaced": f"{report.num_tombstones}, {report.num_removed} of them taken out of their parts",
    }
    if report.resample:
        facts |= _resampled(report.resample)
    print_sections({"store": {"place": report.store, **facts}})
    for path in report.leftovers:
        print(f"left over, harmless, of a job that was killed: {path}")
    for finding in report.findings:
        print(f"not whole: {finding}")


def _resampled(resample: "Resample") -> dict[str, str]:
    lowest = f"lowest cosine {resample.min_cosine:.6f}"
    equal = f"{resample.num_equal} of {resample.num_compared} equal to the bit, {lowest}, on {resample.device}"
    changed = f"{len(resample.changed)}, first {resample.changed[0]}" if resample.changed else "none"
    return {"embedded again": equal, "sources that changed": changed}


def _title(results: dict[str, Any]) -> str:
    tag = f" / {results['pretrained']}" if results["pretrained"] else ""
    failed = f", {results['num_failed_images']} failed" if results["num_failed_images"] else ""
    counts = f"{results['num_images']} images{failed}, {results['num_captions']} captions"
    return f"{results['model']}{tag} on {results['dataset']}: {counts}; recall in %"


def _caption(results: dict[str, Any]) -> str:
    environment = results["environment"]
    return (
        f"{environment['device']}, {environment['cpu']}, {environment['cores']} cores, {environment['precision']}, "
        f"torch {environment['torch']}, {environment['date']}; images/s: image tower alone; "
        "cosine: mean, to the unpruned images"
    )


def _timed(environment: dict[str, Any], precision: str = "") -> str:
    place = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    return (
        f"{place}, {environment['cores']} cores, {precision}torch {environment['torch']}, {environment['date']}; "
        f"median of {environment['rounds']} interleaved rounds, image tower alone"
    )


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _console() -> Console:
    # a pipe has no width: cut nothing there
    console = Console(highlight=False, markup=True)
    return console if console.is_terminal else Console(highlight=False, width=160)
