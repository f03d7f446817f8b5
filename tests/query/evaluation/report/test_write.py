"""The files of a report: what they hold, and that they need nothing else."""

import base64
import hashlib
import json
import re
import struct
from dataclasses import replace
from html import escape
from xml.etree import ElementTree

import pytest

from query.evaluation.raw.data import read_data
from query.evaluation.report.write import write_report
from query.evaluation.results import Estimate
from tests.kit.report_page import Tables, percent
from tests.kit.results import METRIC, SERIES, made_results, many
from tests.kit.sweep_folder import add_kept_patches, made_folder

FEW = {"clipsieve": ("condition", [("fast", 1.93, 1.1), ("lean", 2.5, 3.0)])}
HOSTILE = "</style><script>alert(1)</script>`x` $a_b$ | \u4f60\u597d"


@pytest.fixture(scope="module")
def results():
    return made_results()


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    folder = made_folder(tmp_path_factory.mktemp("sweep") / "out", results)
    add_kept_patches(folder, results.conditions[3].condition.key)
    return folder


@pytest.fixture(scope="module")
def written(results, folder):
    return {path.name: path for path in write_report(results, folder)}


@pytest.fixture(scope="module")
def html(written):
    return written["report.html"].read_text()


def test_the_files(written):
    assert list(written) == ["report.html", "report.md", "plot.png", "plot.svg"]
    assert written["plot.png"].read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(written["plot.svg"]).getroot().tag.endswith("svg")
    assert b">images per second<" in written["plot.svg"].read_bytes()  # text stays text, for editors of papers


def test_the_table_of_conditions_holds_the_results(results, html):
    tables = Tables(html)
    for found in results.conditions:
        on, name = found.on["flickr8k"], found.condition.name
        recall, difference, rate, speedup, cost, tokens = tables.row("conditions-of-0", name)
        value = on.metrics[METRIC]
        assert recall == (percent(value.value), f"{percent(value.low)} to {percent(value.high)}")
        if METRIC in on.differences:
            change = on.differences[METRIC]
            assert difference[0] == (percent(change.value, "+") if abs(change.value) > 5e-4 else "0.0")
            assert percent(change.low, "+").strip("+\N{MINUS SIGN}") in difference[1]
            assert ("visible from 0.6" in " ".join(difference)) == (change.low <= 0 <= change.high)
            assert ("exact" in " ".join(difference)) == (change.method == "exact")
        if found.speed:
            assert rate[0] == f"{found.speed.images_per_second.value:.0f}"
            assert speedup[0] == f"{found.speed.speedup.value:.2f}x"
            assert cost[0] == f"{found.speed.theoretical:.2f}x"
        assert tokens == (str(found.condition.tokens_kept),)


def test_the_tables_of_metrics_hold_the_results(results, html):
    tables = Tables(html)
    for found in results.conditions:
        metrics = found.on["flickr8k"].metrics
        for table, task in (
            ("metrics-image_retrieval-0", "image_retrieval"),
            ("metrics-text_retrieval-0", "text_retrieval"),
        ):
            cells = tables.row(table, found.condition.name)
            assert [cell[0] for cell in cells[:3]] == [percent(metrics[f"{task}_recall@{k}"].value) for k in (1, 5, 10)]
            assert [cell[0] for cell in cells[3:]] == [
                f"{metrics[f'{task}_median_rank'].value:.1f}",
                f"{metrics[f'{task}_mrr'].value:.3f}",
                f"{metrics[f'{task}_ndcg@10'].value:.3f}",
            ]
        by_rule = [metrics[METRIC + rule].value for rule in ("", "(expected)", "(epsilon)", "(duplicates)")]
        assert [cell[0] for cell in tables.row("variants-0", found.condition.name)] == list(map(percent, by_rule))


def test_the_table_behind_the_plot_holds_what_is_drawn(results, html):
    tables = Tables(html)
    for found in results.conditions:
        if found.speed:
            recall, rate, front = tables.row("plotted-0", found.condition.name)
            assert recall[0] == percent(found.on["flickr8k"].metrics[METRIC].value)
            assert rate[0] == f"{found.speed.images_per_second.value:.0f}"
            assert front == ("on the front" if found.condition.key in results.fronts[0].keys else "",)


def test_the_steps_of_a_loss_hold_the_results(results, html):
    tables = Tables(html)
    for step in [*results.decompositions[0].steps[1:], results.decompositions[1].steps[-1]]:
        total, change, so_far = tables.row("steps-0", step.name)
        assert (total[0], change[0], so_far[0]) == (
            percent(step.total.value), percent(step.change.value, "+"), percent(step.from_first.value, "+")
        )  # fmt: skip


def test_a_reader_who_doubts_finds_split_command_and_ranks(results, folder, html):
    assert results.record.data[0].sha256 in html
    assert all(command in html for command in results.record.commands)
    for found in results.conditions:
        files = re.findall(rf"raw/flickr8k/{found.condition.key}\.ranks\.parquet", html)
        assert files
        assert (folder.root / files[0]).is_file()


def test_the_page_can_load_nothing_and_run_nothing(html):
    assert "<script" not in html
    assert not re.search(r"""(?:src|href)=["'](?!data:image/|#)""", html)
    assert " style=" not in html  # the policy would refuse it
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1].replace("&#39;", "'")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'"]
    assert "url(" not in style
    assert "@import" not in style


def test_ids_are_unique(html):
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_the_report_repeats_exactly(results, folder, written):
    before = {name: path.read_bytes() for name, path in written.items()}
    write_report(results, folder)
    assert {name: path.read_bytes() for name, path in written.items()} == before


def test_markdown_holds_the_answer_the_plot_and_every_condition(results, written):
    text = written["report.md"].read_text()
    assert text.startswith("# ViT-B-16: recall against speed on flickr8k\n\n`fast+adapter` is 1.9x")
    assert "](plot.png)" in text
    assert (
        "| `fast` (on the front) | 49.7 (46.6 to 52.5) | \N{MINUS SIGN}1.1 (\N{MINUS SIGN}1.6 to \N{MINUS SIGN}0.6) | "
        "252 (247 to 257) | 1.93x" in text
    )
    for rows in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}
        assert len(widths) == 1, rows[:200]


def test_sixty_conditions_on_two_data_sets_stay_below_2_mb(tmp_path):
    found = made_results({**SERIES, **many(9)}, data=("flickr8k", "scenes & more"))
    assert len(found.conditions) > 60
    folder = made_folder(tmp_path / "out", found)
    add_kept_patches(folder, found.conditions[3].condition.key, count=12)
    written = {path.name: path for path in write_report(found, folder)}
    assert {"plot-2.png", "plot-2.svg"} <= written.keys()
    assert written["report.html"].stat().st_size <= 2_000_000
    width, height = struct.unpack(">II", written["plot.png"].read_bytes()[16:24])
    assert width >= 1600
    assert height >= 900


def test_an_image_that_is_gone_becomes_a_placeholder(tmp_path):
    results = made_results(FEW)
    folder = made_folder(tmp_path / "out", results)
    for path in (folder.root / "photos").iterdir():
        path.unlink()
    html = write_report(results, folder)[0].read_text()
    assert html.count("image not found") == html.count('<span class="gone">') > 20


def test_names_cannot_break_the_page(tmp_path):
    found = made_results({HOSTILE: ("condition", [(HOSTILE, 1.9, 1.0), ("b", 1.5, 0.2)])}, data=("flickr8k",))
    found = replace(found, record=found.record.model_copy(update={"warnings": [HOSTILE], "commands": [HOSTILE]}))
    html = write_report(found, made_folder(tmp_path / "out", found))[0].read_text()
    assert "<script" not in html
    assert html.count("</style>") == 1
    assert Tables(html).row("conditions-of-0", HOSTILE.replace("`", "'"))


def test_without_timings_there_is_no_plot(tmp_path):
    found = made_results(timed=False)
    written = write_report(found, made_folder(tmp_path / "out", found))
    assert [path.name for path in written] == ["report.html", "report.md"]


def test_numbers_without_an_interval_are_drawn_and_shown(tmp_path):
    found = made_results(FEW)
    nothing = float("nan")
    for one in found.conditions:
        on = one.on["flickr8k"]
        on.metrics[METRIC] = Estimate(on.metrics[METRIC].value, nothing, nothing, "none")
    html = write_report(found, made_folder(tmp_path / "out", found))[0].read_text()
    assert Tables(html).row("conditions-of-0", "fast")[0] == ("49.7",)
    assert "nan" not in re.sub(r"data:[^\"]+", "", html).replace("finance", "")


def test_recall_of_0_and_1_is_drawn(tmp_path):
    found = made_results(FEW)
    for one, share in zip(found.conditions, (1.0, 1.0, 0.0), strict=True):
        one.on["flickr8k"].metrics[METRIC] = Estimate(share, max(share - 0.01, 0), min(share + 0.01, 1))
    html = write_report(found, made_folder(tmp_path / "out", found))[0].read_text()
    assert "below the plot: lean" in html


def test_gates_are_shown(results, html):
    tables = Tables(html)
    rows = [[cell[0].strip() for cell in row] for row in tables.by_id["gates"][1:]]
    assert rows == [
        [row.status, row.condition, "flickr8k", f"R@5: {row.bound}", row.found, row.place] for row in results.gates.rows
    ]
    assert "2 OK, 0 FAIL, 1 DRIFT; losses are against the unpruned model" in html
    assert "speedup: not checked" in html


def test_a_policy_of_ones_own_is_printed_as_a_file(results, folder, html):
    for found in results.conditions:
        if found.condition.policy:
            text = json.dumps(found.condition.policy, ensure_ascii=False)
            assert text.replace('"', "&#34;") in html


def test_without_photos_the_report_shows_no_photograph_and_no_query(results, tmp_path):
    folder = made_folder(tmp_path / "out", results)
    shown = [write_report(results, folder, photos)[0].read_text() for photos in (True, False)]
    titles = read_data(folder.data("flickr8k")).titles
    assert ["data:image/" in html for html in shown] == [True, False]
    assert [any(escape(title) in html for title in titles) for html in shown] == [True, False]
    assert "--no-photos" in shown[1]
