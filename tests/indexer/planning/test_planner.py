"""The plan of an index: a table of cases on a machine whose speeds are given."""

from dataclasses import replace

import pytest

from indexer.planning.curves import TYPICAL
from indexer.planning.planner import EXACT_MS, Limits, Machine, in_units, plan
from pipeline.errors import ConfigError
from tests.kit.index_speeds import speeds

M, G = 10**6, 10**9
MACHINE = Machine(threads=2, memory_bytes=24 * G)


def planned(num_rows, dim=192, pilot=TYPICAL, machine=MACHINE, **limits):
    return plan(num_rows, dim, Limits(**limits), machine, speeds(dim), pilot)


@pytest.mark.parametrize(
    ("num_rows", "dim", "limits", "winner"),
    [
        (0, 192, {}, "SQfp16"),
        (1, 192, {}, "SQfp16"),
        (10, 192, {}, "SQfp16"),
        (1_000, 512, {}, "SQfp16"),
        (10_000, 192, {}, "SQfp16"),
        (30_000, 192, {}, "SQfp16"),
        (113_802, 192, {}, "SQfp16"),
        # lists, once comparing every vector takes too long or too much memory
        (113_802, 192, {"max_query_ms": 1}, "IVF674,PQ96x4fs"),
        (113_802, 192, {"max_query_ms": 1, "min_recall": 0.99}, "IVF674,PQ96x4fs"),
        (113_802, 192, {"max_index_memory": 40 * M}, "IVF674,PQ96x4fs"),
        (113_802, 193, {"max_query_ms": 1}, "IVF674,SQ8"),  # an odd width has no pairs of dimensions
        (1_000_000, 512, {"max_index_memory": 600 * M}, "IVF2000,PQ256x4fs"),
        (10_000_000, 192, {"max_index_memory": 1500 * M}, "IVF6324,PQ96x4fs"),
        (10_000_000, 192, {"max_index_memory": 1500 * M, "max_query_ms": 5}, "IVF6324,PQ96x4fs"),
    ],
)
def test_the_winner(num_rows, dim, limits, winner):
    found = planned(num_rows, dim, **limits)
    assert found.winner.recipe == winner
    assert found.winner.refused == ""
    assert found.winner in found.candidates
    assert found.reason.startswith(f"{winner} ")
    assert "\n" not in found.reason


def test_every_number_of_rows_has_a_plan():
    before = 0
    for num_rows in [10, 100, 999, 1_000, 4_096, 5_000, 20_000, 65_536, 200_000, 1_000_000, 3_000_000, 10_000_000]:
        found = planned(num_rows).winner
        assert found.disk_bytes > before
        assert found.num_train <= num_rows
        assert found.shape.num_lists * 32 <= num_rows
        assert found.build_s > 0
        before = found.disk_bytes


def test_what_a_graph_needs_is_in_the_plan():
    graph = next(candidate for candidate in planned(50_000).candidates if candidate.shape.is_graph)
    assert graph.recipe == "HNSW32,SQfp16"
    assert graph.reached.effort >= 10


@pytest.mark.parametrize("flag", ["max_index_memory", "max_build_memory"])
def test_less_memory_never_takes_more(flag):
    taken = flag.removeprefix("max_")
    before = 0
    for megabytes in range(100, 2_000, 60):
        try:
            winner = planned(1_000_000, 192, **{flag: megabytes * M}).winner
        except ConfigError:
            assert before == 0  # once there is a plan, more memory has one as well
            continue
        assert getattr(winner, taken) <= megabytes * M
        if flag == "max_index_memory":
            assert winner.index_memory >= before
        before = winner.index_memory
    assert before


def test_fewer_rows_take_less_of_everything():
    few, many = planned(400_000), planned(4_000_000)
    recipes = {candidate.shape.code: candidate for candidate in few.candidates if candidate.shape.num_lists}
    for candidate in many.candidates:
        if candidate.shape.num_lists:
            other = recipes[candidate.shape.code]
            assert other.index_bytes < candidate.index_bytes
            assert other.index_memory < candidate.index_memory
    assert few.winner.build_s < many.winner.build_s
    assert few.winner.query_ms < many.winner.query_ms


def test_more_recall_takes_more_time():
    times = [planned(1_000_000, min_recall=recall).winner.query_ms for recall in (0.8, 0.9, 0.95, 0.98, 0.99)]
    assert times == sorted(times)
    assert times[-1] > 1.2 * times[0]


def test_less_memory_to_build_trains_on_fewer_rows():
    def of(recipe, **limits):
        return next(found for found in planned(1_000_000, 512, **limits).candidates if found.recipe == recipe)

    wide, narrow = of("IVF6000,PQ256x4fs"), of("IVF6000,PQ256x4fs", max_build_memory=1 * G)
    assert wide.num_train == 64 * 6_000
    assert narrow.num_train == 48 * 6_000
    assert narrow.build_memory <= 1 * G < wide.build_memory
    assert narrow.refused == ""
    assert of("IVF8000,PQ256x4fs", max_build_memory=500 * M).refused == "max_build_memory"


def test_the_limits_are_shares_of_the_machine_unless_given():
    small = planned(1_000_000, 192, machine=Machine(threads=2, memory_bytes=400 * M))
    refused = {candidate.recipe: candidate.refused for candidate in small.candidates}
    assert refused["Flat"] == "max_index_memory"  # 768 MB
    assert small.winner.index_memory <= 200 * M
    assert small.winner.build_memory <= 300 * M


def test_an_exact_index_is_taken_while_it_is_fast():
    last = max(num_rows for num_rows in range(1_000, 100_000, 1_000) if planned(num_rows).winner.shape.is_exact)
    assert planned(last).winner.query_ms <= EXACT_MS < planned(last + 1_000).candidates[-1].query_ms
    assert "compares every vector" in planned(last).reason


def test_exact_recall():
    found = planned(1_000_000, 192, min_recall=1.0).winner
    assert found.shape.is_exact or found.reached.effort == found.shape.num_lists


def test_a_pilot_decides():
    poor = replace(TYPICAL, codes=TYPICAL.codes | {"PQ4": ((10, 0.1), (1_000, 0.5))})
    found = planned(1_000_000, 192, pilot=poor, max_index_memory=300 * M)
    assert "PQ" not in found.winner.recipe
    refused = {candidate.refused for candidate in found.candidates if "PQ" in candidate.recipe}
    assert refused == {"min_recall"}


def test_a_recall_that_nothing_reaches_gets_the_nearest():
    poor = replace(TYPICAL, codes={name: ((10, 0.2), (1_000, 0.6)) for name in TYPICAL.codes})
    found = planned(10_000_000, 192, pilot=poor, max_index_memory=1 * G)
    assert found.winner.refused == "min_recall"
    assert 0.5 < found.winner.reached.recall < 0.6
    assert "no recipe that fits the memory is predicted to reach" in found.reason


def test_time_and_recall_out_of_reach():
    with pytest.raises(ConfigError) as caught:
        planned(10_000_000, max_query_ms=0.5, min_recall=0.99, max_index_memory=1500 * M)
    text = str(caught.value)
    assert text.startswith("max_query_ms = 0.5 and min_recall = 0.99: both are out of reach for 10,000,000 vectors")
    assert "that recall takes " in text
    assert "raise --max-query-ms, lower --min-recall, or raise --max-index-memory" in text
    assert "\n" not in text


@pytest.mark.parametrize("flag", ["max_index_memory", "max_build_memory"])
def test_too_little_memory_names_the_least(flag):
    with pytest.raises(ConfigError) as caught:
        planned(1_000_000, **{flag: 1 * M})
    text = str(caught.value)
    assert text.startswith(f"{flag} = 1M: 1,000,000 vectors of 192 dimensions take at least ")
    assert f"give --{flag.replace('_', '-')} that much" in text
    least = text.partition("at least ")[2].partition("M")[0]
    assert planned(1_000_000, **{flag: int(float(least) * M)}).winner  # the message is right
    with pytest.raises(ConfigError):
        planned(1_000_000, **{flag: int(float(least) * M * 0.98)})


@pytest.mark.parametrize(
    ("num_bytes", "is_least", "text"),
    [(0, False, "0"), (999, False, "999"), (1_240_000, False, "1.2M"), (1_240_000, True, "1.3M"), (3 * G, True, "3G")],
)
def test_bytes_for_people(num_bytes, is_least, text):
    assert in_units(num_bytes, is_least) == text
