"""A store of imported embeddings: what it claims, and what the other verbs do with it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.compact import compact
from pipeline.delete import delete
from pipeline.errors import FingerprintMismatch, InputError, StoreError
from pipeline.model.spec import ClaimedSpec
from pipeline.settings.embed import EmbedSettings
from pipeline.settings.store import CompactSettings, DeleteSettings
from pipeline.store.layout import Store
from pipeline.store.view import StoreView
from query.batch import search_file
from query.cli.main import main
from query.queries.options import Options
from query.searcher import Searcher
from query.text import text_encoder
from tests.kit.damage import check, rewrite, with_value
from tests.kit.embeddings import NOWHERE, rows_of, run_import, stored_vectors, unit_vectors, write_parquet
from tests.kit.plain_embed import embed_plainly


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, photos, tiny_model):
    """A store that was embedded, and its rows as another program would export them."""
    folder = tmp_path_factory.mktemp("embedded")
    store = embed_plainly(photos, folder / "store", tiny_model)
    rows = [row for row in rows_of(store.root) if row["status"] == "ok"]
    columns = {name: [row[name] for row in rows] for name in ("key", "uri")}
    write_parquet(folder / "export.parquet", [row["embedding"] for row in rows], **columns)
    return store.root, folder / "export.parquet"


@pytest.fixture
def imported(tmp_path):
    """A store of 7 rows in 3 shards, of a model that cannot be loaded."""
    source = write_parquet(tmp_path / "v.parquet", unit_vectors(7), key=[f"k{n}" for n in range(7)])
    run_import(source, tmp_path / "store", shard_size=3)
    return Store(tmp_path / "store")


# --- the claim


def test_a_model_that_cannot_be_loaded_is_only_a_claim(imported):
    record = imported.read_record()
    assert record.encoder == ClaimedSpec(source={"model": NOWHERE}, embedding_dim=8, precision="fp32")
    written = json.loads((imported.root / "run.json").read_text())["encoder"]
    assert (written["is_claimed"], written["known_text_space"]) == (True, None)
    metadata = json.loads(pq.read_schema(imported.part_path(0)).metadata[b"clipsieve"])
    assert metadata["encoder"] == written


def test_a_model_that_can_be_loaded_gives_its_text_space(tmp_path, embedded, tiny_model):
    root, export = embedded
    warnings = []
    report = run_import(export, tmp_path / "store", warnings.append, model=tiny_model)
    assert warnings == []
    record, original = report.view.record, Store(root).read_record()
    assert record.text_space == original.text_space == record.encoder.known_text_space
    assert record.fingerprint != original.fingerprint  # nobody saw the images being embedded


def test_other_claims_are_other_encoders():
    claim = ClaimedSpec(source={"model": "a"}, embedding_dim=8, precision="fp32")
    others = [
        ClaimedSpec(source={"model": "b"}, embedding_dim=8, precision="fp32"),
        ClaimedSpec(source={"model": "a", "pretrained": "t"}, embedding_dim=8, precision="fp32"),
        ClaimedSpec(source={"model": "a"}, embedding_dim=9, precision="fp32"),
        claim.model_copy(update={"precision": "fp16"}),
        claim.model_copy(update={"known_text_space": "0" * 64}),
    ]
    assert len({spec.fingerprint for spec in (claim, *others)}) == 6
    assert others[3].text_space == claim.text_space != others[4].text_space


def test_a_model_of_another_dimension_is_refused(tmp_path, tiny_model):
    source = write_parquet(tmp_path / "v.parquet", unit_vectors(3))
    with pytest.raises(InputError, match=r"have 8 values, but those of model local-dir:.* have 32; give the --model"):
        run_import(source, tmp_path / "store", model=tiny_model)
    assert not (tmp_path / "store").exists()


def test_an_open_clip_name_without_weights_is_refused(tmp_path, capsys):
    source = write_parquet(tmp_path / "v.parquet", unit_vectors(3))
    assert main(["import", str(source), "--out", str(tmp_path / "store"), "--model", "ViT-B-32"]) == 2
    assert "give --pretrained TAG" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_an_unknown_name_is_a_claim_and_names_near_ones(tmp_path):
    source = write_parquet(tmp_path / "v.parquet", unit_vectors(3))
    warnings = []
    run_import(source, tmp_path / "store", warnings.append, model="ViT-B/32")
    [warning] = warnings
    assert "search with texts needs it: unknown model 'ViT-B/32'; did you mean" in warning


def test_without_torch_the_model_is_a_claim(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pipeline.model.load", None)  # as if torch were not installed
    source = write_parquet(tmp_path / "v.parquet", unit_vectors(3))
    assert run_import(source, tmp_path / "store", model="scenes").view.record.encoder.known_text_space is None


# --- index and search


def test_imported_embeddings_give_the_hits_of_the_store_they_are_from(tmp_path, embedded, tiny_model):
    root, export = embedded
    run_import(export, tmp_path / "store", model=tiny_model)
    queries = ["a red square", "noise"]
    found = []
    for store in (root, tmp_path / "store"):
        build_index(IndexSettings(store=store))
        answers = Searcher.open(store).search_many(queries, 5)
        found.append([[(hit.key, hit.uri, hit.score) for hit in hits] for hits in answers])
    assert found[0] == found[1]


def test_imported_embeddings_are_found_by_vectors_without_their_model(imported, tmp_path):
    build_index(IndexSettings(store=imported.root))
    vectors = np.array(unit_vectors(7), np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    pq.write_table(pa.table({"embedding": column}), tmp_path / "queries.parquet")
    searcher = Searcher.open(imported.root)
    search_file(searcher, tmp_path / "queries.parquet", tmp_path / "hits.parquet", Options(k=1))
    assert pq.read_table(tmp_path / "hits.parquet")["key"].to_pylist() == [f"k{n}" for n in range(7)]


def test_the_claimed_model_is_looked_for_again(tmp_path, embedded, tiny_model):
    _, export = embedded
    place = tmp_path / "model"
    run_import(export, tmp_path / "store", model=f"local-dir:{place}")
    assert main(["index", str(tmp_path / "store")]) == 0
    assert main(["search", str(tmp_path / "store"), "a cat"]) == 3
    place.symlink_to(tiny_model.removeprefix("local-dir:"))  # it has been copied here
    assert main(["search", str(tmp_path / "store"), "a cat"]) == 0


def test_a_claimed_model_of_another_dimension_cannot_search(tiny_model):
    claim = ClaimedSpec(source={"model": tiny_model}, embedding_dim=8, precision="fp32")
    with pytest.raises(FingerprintMismatch, match=r"have 8 values, but those of model .* have 32; import them again"):
        text_encoder(claim)


def test_the_model_may_not_change_after_the_import(tiny_model):
    claim = ClaimedSpec(source={"model": tiny_model}, embedding_dim=32, precision="fp32", known_text_space="0" * 64)
    with pytest.raises(FingerprintMismatch, match="its weights changed"):
        text_encoder(claim)


# --- other verbs


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--retry", "failed"]])
def test_nothing_is_embedded_into_it(imported, photos, more, capsys):
    assert main(["embed", str(photos), "--out", str(imported.root), "--model", "scenes", *more]) == 4
    assert "holds imported embeddings of " in capsys.readouterr().err


def test_bad_embeddings_are_no_images_to_try_again(capsys):
    with pytest.raises(ValueError, match="expected failed, or some of unreadable"):
        EmbedSettings(source="x", out="y", retry="bad_embedding")


def test_nothing_is_imported_into_a_store_of_images(tmp_path, embedded, tiny_model):
    root, export = embedded
    with pytest.raises(FingerprintMismatch, match="holds images that `clipsieve embed` embedded with"):
        run_import(export, root, model=tiny_model)


def test_rows_are_deleted_and_compacted(imported, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("k1\nk5\n")
    assert delete(DeleteSettings(store=imported.root, keys=keys)).num_rows == 2
    assert compact(CompactSettings(store=imported.root)).num_rows == 2
    report = check(imported)
    assert (report.findings, report.num_ok, report.num_removed) == ([], 5, 2)
    assert np.array_equal(stored_vectors(imported.root), np.delete(unit_vectors(7), [1, 5], axis=0))
    again = run_import(tmp_path / "v.parquet", imported.root)
    assert (again.num_imported, again.num_ok) == (0, 5)


def test_images_of_imports_cannot_be_missed(imported):
    with pytest.raises(StoreError, match="whose images --missing cannot look for; delete by key with --keys"):
        delete(DeleteSettings(store=imported.root, missing=True))


def test_verify_finds_damage_and_says_how_to_mend_it(imported, tmp_path):
    sound = imported.part_path(1).read_bytes()
    imported.part_path(1).write_bytes(sound[:-1] + b"x")
    [finding] = check(imported).findings
    assert finding.endswith("then run the same import command again")
    imported.part_path(1).unlink()
    imported.marker_path(1).unlink()
    [finding] = check(imported).findings
    assert finding.endswith("first 1; run the same import command again")
    with pytest.raises(StoreError, match="run the same import command again to finish it"):
        StoreView.open(imported.root)
    assert run_import(tmp_path / "v.parquet", imported.root).num_imported == 3
    assert imported.part_path(1).read_bytes() == sound
    assert check(imported).findings == []
    rewrite(imported, 2, with_value("embedding", 0, lambda old: [2 * value for value in old]))
    [finding] = check(imported).findings
    assert "1 embeddings do not have norm 1, first id 6" in finding


def test_nothing_can_be_embedded_again(imported):
    with pytest.raises(StoreError, match="holds imported embeddings, not images; verify without --resample"):
        check(imported, resample=2)


def test_the_results_are_written_as_json(imported, tmp_path, capsys):
    argv = ["import", str(tmp_path / "v.parquet"), "--out", str(imported.root), "--model", NOWHERE, "--json"]
    assert main(argv) == 0
    results = json.loads(capsys.readouterr().out)
    assert (results["num_images"], results["num_imported"], results["num_normalised"]) == (7, 0, 0)
    assert (results["embedding_dim"], results["precision"], results["key_column"]) == (8, "fp32", "key")
    summary = json.loads((imported.root / "stats.json").read_text())
    assert summary["store"]["num_images"] == 7


def test_carried_columns_are_those_of_the_source(tmp_path):
    columns = {"day": pa.array([1, 2], pa.date32()), "data": [b"\x00\xff", None]}
    source = write_parquet(tmp_path / "v.parquet", unit_vectors(2), key=["a", "b"], **columns)
    report = run_import(source, tmp_path / "store", columns="day,data")
    assert report.view.record.columns == {"day": "date32[day]", "data": "binary"}
    assert [row["data"] for row in rows_of(tmp_path / "store")] == [b"\x00\xff", None]
    assert check(report.view.store).findings == []
