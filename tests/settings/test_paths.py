"""Settings that are paths: ~ and file:// in all of them, wherever they come from, and no URLs."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.settings.flags import is_positional, key_of
from pipeline.settings.load import load_settings
from pipeline.settings.paths import is_path
from query.cli.main import main
from query.cli.verbs import VERBS, settings_class

NEEDED = {
    "embed": {"source": "photos", "out": "store"},
    "import": {"source": "vectors.npy", "out": "store", "model": "m"},
    "adapt": {"out": "adapter"},
    "index": {"store": "store"},
    "search": {"store": "store", "query": "a cat"},
    "serve": {"store": "store"},
    "evaluate": {"images": "photos", "captions": "captions.tsv"},
    "sweep": {"grid": "grid.yaml", "out": "sweep"},
    "verify": {"store": "store"},
    "delete": {"store": "store", "keys": "keys.txt"},
    "compact": {"store": "store"},
}
PATHS = [
    (verb, name)
    for verb in VERBS
    for name, field in settings_class(verb).model_fields.items()
    if is_path(field.annotation) and name != "config"
]
TEXTS = [
    (verb, name)
    for verb in VERBS
    for name in ("adapter", "control", "pretrained")
    if name in settings_class(verb).model_fields
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def command_line(verb, name, value):
    """The arguments of a verb with one setting given, as one word: no shell has touched its value."""
    fields = settings_class(verb).model_fields
    words = []
    for given, text in {**NEEDED.get(verb, {}), name: value}.items():
        flag = f"--{key_of(given, fields[given]).replace('_', '-')}"
        words.append(text if is_positional(fields[given]) else f"{flag}={text}")
    return words


def loaded(verb, name, value):
    argv = command_line(verb, name, value)
    if name == "adapter" and verb == "adapt":  # exporting, which trains nothing
        argv = [word for word in argv if not word.startswith("--out")] + ["--export=x"]
    if verb == "search" and name in ("queries", "vectors"):
        argv = [word for word in argv if word != "a cat"] + ["--out=x"]
    if name == "data":
        argv.append("--label-free")
    return getattr(load_settings(settings_class(verb), verb, argv, ""), name)


def test_most_verbs_have_paths():
    assert len(PATHS) > 25
    assert {verb for verb, _ in PATHS} == set(VERBS) - {"completion"}


@pytest.mark.parametrize(("verb", "name"), PATHS)
def test_a_path_can_begin_with_the_home_folder_or_be_a_file_uri(verb, name, home):
    assert loaded(verb, name, "~/a b") == home / "a b"
    assert loaded(verb, name, "file:///a%20b/c") == Path("/a b/c")
    assert loaded(verb, name, "x/~/y") == Path("x/~/y")


@pytest.mark.parametrize(("verb", "name"), PATHS)
@pytest.mark.parametrize("url", ["s3://bucket/x", "https://host/x", "hdfs://host/x", "s3:/bucket/x"])
def test_a_path_is_no_url(verb, name, url, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*verb.split(), *command_line(verb, name, url)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{name} = {url!r}: expected a path on this machine, found a URL" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("verb", "name"), TEXTS)
def test_a_name_can_be_a_path(verb, name, home):
    assert loaded(verb, name, "~/x") == str(home / "x")
    assert loaded(verb, name, "scenes") == "scenes"
    with pytest.raises(ConfigError, match=r"\w+ = 's3://b/x': expected a path on this machine"):
        loaded(verb, name, "s3://b/x")


def test_files_of_policies(home):
    home.mkdir()
    (home / "p.yaml").write_text("schedule: {kind: stages, cuts: [{depth: 0.5, keep: 0.5}]}\n")
    assert loaded("embed", "policy", "~/p.yaml") == f"{home}/p.yaml"
    assert loaded("evaluate", "policy", "fast, ~/p.yaml") == f"fast,{home}/p.yaml"
    with pytest.raises(ConfigError, match=r"'s3://b/p.yaml': expected a path on this machine"):
        loaded("embed", "policy", "s3://b/p.yaml")


def test_folders_of_models(home):
    assert loaded("embed", "model", "local-dir:~/m") == f"local-dir:{home}/m"
    assert loaded("embed", "model", "hf-hub:org/name") == "hf-hub:org/name"
    with pytest.raises(ConfigError, match="model = 'local-dir:s3://b/m': expected a path on this machine"):
        loaded("embed", "model", "local-dir:s3://b/m")


def test_paths_from_the_file_and_the_environment(home, tmp_path, monkeypatch):
    home.mkdir()
    (home / "c.yaml").write_text("out: ~/store\nsource: ~/photos/*.tar\ncaptions: file:///c.tsv\n")
    settings = load_settings(settings_class("embed"), "embed", ["--config=~/c.yaml"], "")
    assert (settings.out, settings.source) == (home / "store", f"{home}/photos/*.tar")
    assert settings.captions == Path("/c.tsv")
    monkeypatch.setenv("CLIPSIEVE_EMBED_CONFIG", "~/c.yaml")
    monkeypatch.setenv("CLIPSIEVE_EMBED_OUT", "~/other")
    assert load_settings(settings_class("embed"), "embed", [], "").out == home / "other"
    for place in (["--config", "s3://b/c.yaml"], ["--config=https://h/c.yaml"]):
        with pytest.raises(ConfigError, match=r"config = .*: expected a path on this machine"):
            load_settings(settings_class("embed"), "embed", place, "")


@pytest.mark.parametrize("source", ["s3://b/x", "https://h/0.tar?x=~", "file:///~/x", "photos/~", "gs://b"])
def test_sources_can_be_urls(source):
    assert loaded("embed", "source", source) == source


def test_paths_in_python(home):
    made = settings_class("embed")(source=Path("~/photos"), out=Path("~/store"))
    assert (made.source, made.out) == (str(home / "photos"), home / "store")
    with pytest.raises(ValueError, match="expected a path on this machine"):
        settings_class("embed")(source="photos", out=Path("s3://bucket/store"))


def test_the_home_of_nobody(capsys):
    assert main(["embed", "photos", "--out", "~nobody-of-that-name/x"]) == 2
    assert "there is no home folder ~nobody-of-that-name; write ./~nobody-of-that-name/x" in capsys.readouterr().err


# --- patterns


def test_an_expanded_pattern_is_recognised(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    names = [f"shards/{number}.tar" for number in range(200)]
    for name in names:
        (tmp_path / name).touch()
    assert main(["embed", *names, "--out", "store"]) == 2
    error = capsys.readouterr().err
    assert "unrecognized arguments: shards/1.tar shards/2.tar shards/3.tar ... (the shell has expanded a" in error
    assert "quote the pattern, as in 'shards/*.tar'" in error
    assert error.count("\n") == 1
    assert main(["embed", "photos", "shards", "--outt", "store"]) == 2
    assert "quote" not in capsys.readouterr().err


def test_a_query_without_quotation_marks(capsys):
    assert main(["search", "store", "red", "car"]) == 4
    assert "2 queries of one word each; put a query of several words in quotation marks" in capsys.readouterr().err


def test_patterns_to_exclude_are_taken_as_they_are(tmp_path, monkeypatch):
    def excluded(*flags):
        return load_settings(settings_class("embed"), "embed", ["photos", "--out=s", *flags], "").exclude

    assert excluded() == ()
    assert excluded("--exclude", "[ab],*.jpg", "--exclude={x}") == ("[ab],*.jpg", "{x}")
    (tmp_path / "c.yaml").write_text("exclude: ['a,b', '*.gif']\n")
    assert excluded("--config", str(tmp_path / "c.yaml")) == ("a,b", "*.gif")
    monkeypatch.setenv("CLIPSIEVE_EMBED_EXCLUDE", "*.gif,drafts")
    assert excluded() == ("*.gif", "drafts")
    assert excluded("--exclude", "x") == ("x",)
