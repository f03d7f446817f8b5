"""The text queries of a store: from files of texts and vectors, or built-in, embedded by its own text tower."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import FingerprintMismatch, InputError
from pipeline.model.load import load_model
from pipeline.model.spec import EMBEDDED, ModelSource
from query.proof import text_queries as module
from query.proof.generator import SHAPES, built_in_texts, scene_texts
from query.proof.text_queries import text_queries
from query.proof.words import WORDS
from query.queries.texts import read_query_texts


@pytest.fixture(scope="module")
def tiny_spec(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu").spec


@pytest.fixture(scope="module")
def encoder(tiny_spec):
    return module.text_encoder(tiny_spec)


@pytest.fixture
def view(tiny_spec, encoder, tmp_path, monkeypatch):
    """All that is asked of a store: its encoder. There are few queries, so that the tests are quick."""
    monkeypatch.setenv("CLIPSIEVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "MIN_QUERIES", 10)
    load = module.text_encoder  # the encoder of most tests is loaded once
    monkeypatch.setattr(module, "text_encoder", lambda spec, *args: encoder if spec == tiny_spec else load(spec, *args))
    return view_of(tiny_spec)


def view_of(spec):
    return SimpleNamespace(record=SimpleNamespace(encoder=spec))


def num_embedded(view, *args, **flags):
    """How many texts it embeds rather than reads from the cache."""
    counts = []
    text_queries(view, *args, on_progress=counts.append, **flags)
    return sum(counts)


def test_built_in_texts_are_different_and_always_the_same():
    texts = built_in_texts(20_000)
    assert len(set(texts)) == 20_000
    assert built_in_texts(100) == texts[:100]
    assert built_in_texts(100, seed=1) != texts[:100]
    assert not any(set("{}|+") & set(text) or text != " ".join(text.split()) for text in texts)


def test_every_kind_of_word_is_used_and_known():
    used = set(re.findall(r"\{(\w+)", f"{WORDS} {SHAPES}"))
    assert used == set(WORDS)


def test_texts_of_the_built_in_model_speak_of_its_scenes():
    texts = scene_texts(2_000)
    assert len(set(texts)) == 2_000
    assert scene_texts(10) == texts[:10]
    shapes = ("circle", "square", "triangle", "star", "cross", "ring")
    assert all(any(shape in text for shape in shapes) for text in texts)


def test_without_a_file_built_in_texts_tune_and_prove(view, encoder):
    found = text_queries(view)
    assert found.source == "proven with 10 built-in texts, tuned with 10 built-in texts"
    for vectors_QE in (found.tuning_QE, found.proving_QE):
        assert vectors_QE.dtype == np.float32
        assert vectors_QE.shape == (10, 32)
        assert np.allclose(np.linalg.norm(vectors_QE, axis=1), 1, atol=1e-5)
    assert not {v.tobytes() for v in found.tuning_QE} & {v.tobytes() for v in found.proving_QE}
    assert np.allclose(found.proving_QE, encoder.encode_texts(built_in_texts(20)[1::2]), atol=1e-6)


def test_the_built_in_model_gets_texts_that_it_knows(view, monkeypatch):
    spec = load_model(ModelSource(model=EMBEDDED), "fp32", "cpu").spec
    found = text_queries(view_of(spec))
    assert np.allclose(found.tuning_QE, module.text_encoder(spec).encode_texts(scene_texts(20)[::2]), atol=1e-6)


@pytest.mark.parametrize(
    ("num_texts", "num_proving", "num_tuning", "source"),
    [
        (1, 1, 10, "proven with 1 text of q.txt, tuned with 10 built-in texts"),
        (9, 9, 10, "proven with 9 texts of q.txt, tuned with 10 built-in texts"),
        (14, 10, 10, "proven with 10 texts of q.txt, tuned with 4 texts of q.txt and 6 built-in texts"),
        (25, 13, 12, "proven with 13 texts of q.txt, tuned with 12 texts of q.txt"),
    ],
)
def test_a_file_proves_and_tunes_if_it_has_enough(view, tmp_path, num_texts, num_proving, num_tuning, source):
    (tmp_path / "q.txt").write_text("\n".join(f"photo {number}" for number in range(num_texts)) + "\nphoto 0\n\n")
    found = text_queries(view, tmp_path / "q.txt")
    assert (len(found.proving_QE), len(found.tuning_QE)) == (num_proving, num_tuning)
    assert found.source == source


def test_built_in_texts_that_the_file_has_do_not_tune(view, tmp_path):
    (tmp_path / "q.txt").write_text("\n".join(built_in_texts(9)))
    found = text_queries(view, tmp_path / "q.txt")
    assert len(found.tuning_QE) == 10
    assert not {v.tobytes() for v in found.tuning_QE} & {v.tobytes() for v in found.proving_QE}


def test_no_more_texts_than_the_time_allows(view, monkeypatch):
    monkeypatch.setattr("query.proof.text_vectors._BATCH_TEXTS", 4)
    found = text_queries(view, limit_s=0)
    assert (len(found.proving_QE), len(found.tuning_QE)) == (4, 4)
    few = "4 built-in texts (of 10; more would take over 0 s to embed)"
    assert found.source == f"proven with {few}, tuned with {few}"
    assert num_embedded(view, limit_s=0) == 0
    assert num_embedded(view) == 20  # more time, more texts


def test_texts_are_embedded_once(view, tmp_path):
    assert num_embedded(view) == 20
    assert num_embedded(view) == 0
    # even when the weights have moved
    moved = view.record.encoder.model_copy(update={"source": ModelSource(model="local-dir:/nowhere")})
    assert len(text_queries(view_of(moved)).proving_QE) == 10


@pytest.mark.parametrize("damage", ["cut", "flipped", "other space", "other text", "not Parquet", "no metadata"])
def test_a_cache_that_cannot_be_trusted_is_written_anew(view, tmp_path, damage):
    before = text_queries(view)
    for path in (tmp_path / "cache" / "text-vectors").iterdir():
        raw, table = path.read_bytes(), pq.read_table(path)
        if damage == "cut":
            path.write_bytes(raw[: len(raw) // 2])
        elif damage == "flipped":
            vector = before.proving_QE[3].tobytes()
            vector = vector if vector in raw else before.tuning_QE[3].tobytes()
            pq.write_table(table, path, compression="none", use_dictionary=False)
            raw = path.read_bytes()
            at = raw.index(vector)
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        elif damage == "not Parquet":
            path.write_text("text")
        elif damage == "no metadata":
            pq.write_table(table.replace_schema_metadata(None), path)
        elif damage == "other space":
            found = json.loads(table.schema.metadata[b"clipsieve"])
            pq.write_table(table.replace_schema_metadata({"clipsieve": json.dumps(found | {"text_space": "x"})}), path)
        else:
            texts = pa.array([*table["query"].to_pylist()[1:], "another"])
            pq.write_table(table.set_column(0, "query", texts), path)
    assert num_embedded(view) == 20
    assert num_embedded(view) == 0
    assert np.allclose(text_queries(view).proving_QE, before.proving_QE, atol=1e-6)


def test_a_home_that_cannot_be_written_does_without(view, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert num_embedded(view) == 20
    assert num_embedded(view) == 20


def test_a_cache_file_can_be_given_as_queries(view, tmp_path):
    text_queries(view)
    path = next((tmp_path / "cache" / "text-vectors").iterdir())
    assert text_queries(view, path).source.startswith("proven with 10 vectors of")
    other = view.record.encoder.model_copy(update={"text_weights_sha256": "0" * 64})
    with pytest.raises(InputError, match=r"they are in text space \w{16}, but the store is in \w{16}; embed"):
        text_queries(view_of(other), path)


def test_vectors_are_used_as_they_are_and_built_in_texts_tune(view, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((12, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pq.write_table(pa.table({"embedding": list(vectors)}), tmp_path / "v.parquet")
    found = text_queries(view, tmp_path / "v.parquet")
    assert found.source == "proven with 10 vectors of v.parquet, tuned with 2 vectors of v.parquet and 8 built-in texts"
    own = np.concatenate([found.proving_QE, found.tuning_QE[:2]])
    assert np.allclose(sorted(own.tolist()), sorted(vectors.tolist()), atol=1e-6)


def test_a_store_without_a_text_tower(view, tmp_path):
    lost = view.record.encoder.model_copy(update={"source": ModelSource(model="local-dir:/nowhere")})
    reason = text_queries(view_of(lost))
    assert isinstance(reason, str)
    assert reason.startswith("the store's text tower cannot be used: ")
    assert "\n" not in reason
    changed = view.record.encoder.model_copy(update={"text_weights_sha256": "0" * 64})
    assert "its weights changed" in text_queries(view_of(changed))
    (tmp_path / "q.txt").write_text("a cat\na dog\n")
    with pytest.raises(FingerprintMismatch, match="its weights changed"):
        text_queries(view_of(changed), tmp_path / "q.txt")


def test_vectors_of_a_store_without_a_text_tower_tune_and_prove(view, tmp_path):
    pq.write_table(pa.table({"embedding": list(np.eye(5, 32, dtype=np.float32))}), tmp_path / "v.parquet")
    lost = view.record.encoder.model_copy(update={"source": ModelSource(model="local-dir:/nowhere")})
    warnings = []
    found = text_queries(view_of(lost), tmp_path / "v.parquet", on_warning=warnings.append)
    assert found.source == "proven with 3 vectors of v.parquet, tuned with 2 others"
    assert warnings[0].startswith("v.parquet both tunes and proves the index: built-in texts cannot tune it, because")


def test_texts_that_are_cut_are_a_warning(view, tmp_path):
    (tmp_path / "q.txt").write_text("a cat\n" + "two dogs " * 50)
    warnings = []
    text_queries(view, tmp_path / "q.txt", on_warning=warnings.append)
    assert warnings == [
        f"{tmp_path / 'q.txt'}: 1 of 2 queries are longer than the 77 tokens that the model reads; the rest is ignored"
    ]


@pytest.mark.parametrize("name", ["q.txt", "q.TSV", "captions.tsv", "q.jsonl", "strings.jsonl", "q.parquet"])
def test_texts_of_every_format(tmp_path, name):
    path = tmp_path / name
    if name == "q.parquet":
        table = {"id": [1, 2, 3], "title": ["x", "y", "z"], "text": ["a cat", "zwei Hünde", "a cat"]}
        pq.write_table(pa.table(table), path)
    else:
        text = {
            "q.txt": "\ufeffa cat\r\n\r\n  zwei Hünde \r\na cat\r\n",
            "q.TSV": "id\tquery\n1\ta cat\n2\tzwei Hünde\n",
            "captions.tsv": "1.png\ta cat\n2.png\tzwei Hünde\n",
            "q.jsonl": '{"query": "a cat", "text": "x"}\n{"caption": ["zwei Hünde", "y"]}\n',
            "strings.jsonl": '"a cat"\n"zwei Hünde"\n',
        }[name]
        path.write_text(text, encoding="utf-8", newline="")
    assert read_query_texts(path) == ["a cat", "zwei Hünde"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", "", "is empty; expected one text per line or row"),
        ("q.txt", "\n \n", "is empty; expected one text per line or row"),
        ("q.csv", "query\na", r"expected a name that ends in one of \.txt \.tsv \.jsonl \.parquet"),
        ("q.txt", None, "No such file or directory"),
        ("q.parquet", None, "No such file or directory"),
        ("q.parquet", "text", "expected a Parquet file"),
        ("q.tsv", "query\tid\na\n", "line 2: expected 2 fields, found 1"),
        ("q.tsv", "a cat\na dog\n", "line 1: expected 2 fields, found 1; begin the file with a header"),
        (
            "q.jsonl",
            '{"query": "a"}\n{"name": "b"}\n',
            "line 2: it has none of the columns query, caption, text, title",
        ),
        ("q.jsonl", '{"query": "a"}\n{"query"\n', "line 2 is not JSON"),
        ("q.jsonl", '{"query": "a"}\n{"query": null}\n', "line 2: it has no text; leave it out"),
    ],
)
def test_a_file_that_cannot_be_used(view, tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        text_queries(view, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": ["a"]}, "it has none of the columns query, caption, text, title, only name"),
        ({"query": pa.array([], pa.string())}, "is empty; expected one text per line or row"),
        ({"query": ["a", None]}, "row 2: it has no text; leave it out"),
    ],
)
def test_a_table_of_texts_that_cannot_be_used(view, tmp_path, table, message):
    pq.write_table(pa.table(table), tmp_path / "q.parquet")
    with pytest.raises(InputError, match=message):
        text_queries(view, tmp_path / "q.parquet")
