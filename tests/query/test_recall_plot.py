"""The plot of `index --plot`."""

from xml.etree import ElementTree

import pytest

from indexer.manifest import IndexManifest, Proof
from indexer.proof.curve import Interval, Measured
from indexer.recipes.point import OperatingPoint
from pipeline.errors import ConfigError
from query.pictures.recall import write_recall_plot


def manifest(*measured):
    """What the plot reads of an index."""
    proof = Proof(is_proven=bool(measured), reason="no queries", min_recall=0.9, text=measured)
    return IndexManifest.model_construct(
        recipe="IVF64,Flat", num_vectors=1000, embedding_dim=192, point=OperatingPoint(effort=4), proof=proof
    )


def measured(effort, recall):
    """A point of the curve."""
    interval = Interval(mean=recall, low=recall - 0.02, high=recall + 0.01)
    return Measured(
        point=OperatingPoint(effort=effort), recall_at_1=interval, recall_at_10=interval, recall_at_100=interval,
        recall_at_10_p5=recall - 0.2, tie_recall_at_10=recall, p50_ms=0.1 * effort,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".svg", ".png", ""])
def test_it_is_written_in_the_format_of_its_suffix(tmp_path, suffix):
    path = tmp_path / f"plot{suffix}"
    write_recall_plot(path, manifest(measured(1, 0.8), measured(4, 0.95)))
    if suffix == ".svg":
        texts = ["".join(node.itertext()) for node in ElementTree.parse(path).iter() if node.tag.endswith("}text")]
        assert {"recall against exact search", "searched here: effort 4", "asked for"} <= set(texts)
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_an_index_without_a_curve_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no curve \(no queries\); nothing was drawn"):
        write_recall_plot(tmp_path / "plot.svg", manifest())
