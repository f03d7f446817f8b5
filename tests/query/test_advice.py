"""What an error advises can be done with the verb that prints it."""

import ast
import errno
import os
import re
import shutil
from pathlib import Path

import pytest

import pipeline.durable.lock
from query.cli import main as command_line
from query.cli.main import main
from query.cli.verbs import VERBS, flags_of, module_of
from tests.kit.plain_embed import embed_plainly

ROOT = Path(__file__).resolve().parents[2]
FLAG = re.compile(r"--[a-z][a-z0-9-]+")
ALL_FLAGS = set().union(*(flags_of(verb) for verb in VERBS))
NO_SETTINGS = {
    *("--version", "--no-"),
    "--plot-",  # CSS variables of the report
    *("--format", "--query-gpu", "--junitxml"),  # nvidia-smi, pytest
    *("--force-reinstall", "--only-binary"),  # pip
    *("--sort", "--dereference", "--head", "--address"),  # tar, ray
}
OWN_PARSERS = {"pipeline/scenes/train.py"}


def messages():
    """Every text in the code except docstrings, with its file and line."""
    for path in sorted(path for top in ("pipeline", "indexer", "query") for path in (ROOT / top).rglob("*.py")):
        if path.relative_to(ROOT).as_posix() in OWN_PARSERS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def test_every_flag_in_a_message_is_a_flag_of_some_verb():
    # every switch has a --no- form
    named = {(place, re.sub("^--no-(?=.)", "--", flag)) for place, text in messages() for flag in FLAG.findall(text)}
    assert len(named) > 50  # the search itself works
    assert {pair for pair in named if pair[1] not in ALL_FLAGS | NO_SETTINGS} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_a_verb_use_its_own_flags(verb):
    commands = module_of(verb).EXAMPLES.replace("\\\n", " ").splitlines()
    own = [line for line in commands if f"clipsieve {verb} " in f"{line} "]
    assert own
    for line in own:
        assert set(FLAG.findall(line.partition("&&")[0])) <= flags_of(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_an_error_says_whose_the_flags_are_that_its_verb_lacks(verb, monkeypatch, capsys):
    class Failing:
        message = ""

    def fail(*_):
        raise command_line.ClipsieveError(Failing.message)

    monkeypatch.setattr(command_line, "_run", fail)
    for flag in sorted(ALL_FLAGS - {"-k"}):
        Failing.message = f"it went wrong; pass {flag} X, or --unheard-of"
        assert main(verb.split()) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        owners = [other for other in VERBS if flag in flags_of(other)]
        expected = "" if verb in owners else f" ({flag} belongs to clipsieve {', '.join(owners)})"
        assert error == f"error: {Failing.message}{expected}\n"


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        (["search", "store", "a cat"], "run the same command again"),
        (["bench", "model"], "run the same command again"),
        (["embed", "photos", "--out", "store"], "what is done is kept: run the same command to resume"),
    ],
)
def test_an_interrupted_verb_promises_only_what_it_keeps(argv, advice, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_run", interrupt)
    assert main(argv) == 130
    assert capsys.readouterr().err == f"interrupted; {advice}\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photos, tiny_model):
    return embed_plainly(photos, tmp_path_factory.mktemp("finished") / "store", tiny_model).root


@pytest.mark.parametrize("verb", ["delete", "compact"])
def test_a_store_that_cannot_be_written(verb, finished, tmp_path, monkeypatch, capsys):
    (tmp_path / "keys.txt").write_text("photo-01.png\n")
    real = os.open

    def read_only(path, flags, *more, **named):
        if flags & os.O_WRONLY and str(path).startswith(str(finished)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(pipeline.durable.lock.os, "open", read_only)
    assert main([verb, str(finished), *(["--keys", str(tmp_path / "keys.txt")] if verb == "delete" else [])]) == 4
    error = capsys.readouterr().err
    assert "lock.json: Read-only file system; make the store writable, or work on a copy of it" in error
    assert "--" not in error


@pytest.mark.parametrize("verb", ["index", "search", "compact"])
def test_an_unfinished_store(verb, finished, tmp_path, capsys):
    store = shutil.copytree(finished, tmp_path / "store")
    next((store / "embeddings").glob("*.stats.json")).unlink()
    assert main([verb, str(store), *(["a cat"] if verb == "search" else [])]) == 4
    error = capsys.readouterr().err
    assert "run the same embed command again to finish it" in error
    assert ("--partial" in error) == ("--partial" in flags_of(verb))


def test_doctor_takes_the_tag_that_it_asks_for(capsys):
    assert main(["doctor", "--model", "ViT-B-32", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "give --pretrained TAG" in printed
    assert set(FLAG.findall(printed.split("ViT-B-32", 1)[1].split("pixels against")[0])) <= flags_of("doctor")
