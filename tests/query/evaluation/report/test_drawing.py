"""What the drawings show, before they become files."""

import re
from dataclasses import replace

import pytest

from query.evaluation.report.drawing.palette import VARIABLE_OF, style_of
from query.evaluation.report.drawing.scale import scale_of
from query.evaluation.report.drawing.scatter import draw_scatter, points_of, tips_of
from query.evaluation.report.drawing.waterfall import draw_waterfall
from query.evaluation.report.tables.losses import losses_of
from query.evaluation.results import Estimate
from query.pictures.inline import inline_svg
from query.pictures.plot import drawing_settings
from tests.kit.results import METRIC, made_results


@pytest.fixture(scope="module")
def results():
    return made_results()


@pytest.fixture(scope="module", params=[False, True], ids=["wide", "narrow"])
def scatter(results, request):
    with drawing_settings():
        return draw_scatter(results, results.fronts[0], is_narrow=request.param)


def line(figure, gid):
    return next(one for one in figure.axes[0].lines if one.get_gid() == gid)


def test_every_condition_is_where_its_numbers_are(results, scatter):
    for number, point in enumerate(points_of(results, results.fronts[0])):
        x, y = line(scatter, f"point-{number}").get_data()
        assert (x[0], y[0]) == (point.rate.value, point.recall.value)


def test_intervals_go_both_ways(results, scatter):
    ends = {tuple(segment.ravel().round(6)) for bars in scatter.axes[0].collections for segment in bars.get_segments()}
    for point in points_of(results, results.fronts[0]):
        x, y, rate, recall = point.rate.value, point.recall.value, point.rate, point.recall
        assert tuple(round(end, 6) for end in (rate.low, y, rate.high, y)) in ends
        assert tuple(round(end, 6) for end in (x, recall.low, x, recall.high)) in ends


def test_the_front_and_the_names_of_its_conditions(results, scatter):
    keys = results.fronts[0].keys
    drawn = next(one for one in scatter.axes[0].lines if one.get_label() == "front")
    assert list(drawn.get_xdata()) == [results.of(key).speed.images_per_second.value for key in keys]
    named = {text.get_text() for text in scatter.axes[0].texts}
    assert named == {results.of(key).condition.name for key in keys}


def test_names_cover_no_point_and_no_name(scatter):
    axes = scatter.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    points = [axes.transData.transform(one.get_xydata()[0]) for one in axes.lines if one.get_gid()]
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])


def test_series_differ_in_colour_and_marker_and_rivals_are_hollow():
    for is_rival in (False, True):
        styles = [style_of(number, is_rival) for number in range(50)]
        assert len(set(styles)) == len(styles)
        assert {one.is_filled for one in styles} == {not is_rival}
        assert len({one.colour for one in styles[:6]}) == len({one.marker for one in styles[:6]}) == 6


@pytest.mark.parametrize("is_narrow", [False, True])
def test_a_waterfall_goes_from_value_to_value(results, is_narrow):
    [losses] = losses_of(results)  # two decompositions, which differ in the operating point
    assert len(results.decompositions) == 2
    with drawing_settings():
        bars = draw_waterfall(losses, is_narrow=is_narrow).axes[0].patches
    none, fast, adapted, *points = (step.total.value for step in losses.steps)
    assert [bar.get_x() for bar in bars] == pytest.approx([none, fast, adapted, adapted])
    assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx([fast, adapted, *points])


def test_long_intervals_do_not_squeeze_the_plot():
    found = made_results({"clipsieve": ("condition", [("fast", 1.93, 1.1), ("lean", 2.5, 3.0)])})
    speed = replace(found.conditions[1].speed, images_per_second=Estimate(252, 0.01, 90_000, "t"))
    found = replace(
        found, conditions=[found.conditions[0], replace(found.conditions[1], speed=speed), found.conditions[2]]
    )
    with drawing_settings():
        axes = draw_scatter(found, found.fronts[0], is_narrow=False).axes[0]
    assert 60 < axes.get_xlim()[0] < axes.get_xlim()[1] < 600
    assert axes.get_xscale() == "linear"


def test_the_ends_of_recall_have_a_place():
    scale = scale_of([Estimate(1.0, 0.94, 1.0), Estimate(0.98, 0.9, 1.0), Estimate(0.2, 0.1, 0.3)])
    assert scale.ceiling == pytest.approx(0.99)
    assert scale.place(1.0) == scale.ceiling > scale.place(0.98) == 0.98
    assert not scale.shows(Estimate(0.2, 0.1, 0.3))


def test_an_svg_of_the_page_has_the_colours_of_the_page_and_no_style(results, scatter):
    tips = tips_of(results, results.fronts[0])
    with drawing_settings():
        svg = inline_svg(scatter, "plot-0", "what it shows", VARIABLE_OF, tips)
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert {"style=", "<style", "<metadata", "xlink", "font-family"} & set(re.findall("|".join(
        ["style=", "<style", "<metadata", "xlink", "font-family"]), svg)) == set()  # fmt: skip
    assert svg.count("var(--plot-ink)") > 5
    assert all(tip in svg for tip in tips.values())
    assert set(re.findall(r'href="#([^"]+)"', svg)) <= set(re.findall(r' id="([^"]+)"', svg))
    assert f"fast: R@5 {100 * results.conditions[3].on['flickr8k'].metrics[METRIC].value:.1f}, 252 images/s" in svg
