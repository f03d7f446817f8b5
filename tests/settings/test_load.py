"""Settings from flags, environment, YAML and defaults: which one wins, and what is refused."""

import os
from pathlib import Path

import pytest
import yaml

import pipeline.settings.embed
from pipeline.errors import ConfigError
from pipeline.model.pruning.policy import named_policy
from pipeline.settings.adapt import AdaptSettings
from pipeline.settings.embed import EmbedSettings, SourceSettings
from pipeline.settings.flags import key_of
from pipeline.settings.load import OutputSettings, Settings, load_settings
from pipeline.settings.model import PolicySettings
from pipeline.settings.workers import WorkerSettings
from query.settings import BenchModelSettings

VERBS = {"embed": EmbedSettings}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("CLIPSIEVE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def load(tmp_path):
    """Loads the settings of `embed photos --out store` with additional flags and a YAML text."""

    def run(*flags, text=None, given=("photos", "--out", "store")):
        argv = [*given, *flags]
        if text is not None:
            (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
            argv += ["--config", str(tmp_path / "config.yaml")]
        return load_settings(EmbedSettings, "embed", argv, "  clipsieve embed photos --out store")

    return run


def refuse(load, *flags, message, **more):
    with pytest.raises(ConfigError, match=message) as caught:
        load(*flags, **more)
    assert "\n" not in str(caught.value)


def test_every_settings_class_here_is_tested():
    found = {
        value
        for value in vars(pipeline.settings.embed).values()
        if isinstance(value, type)
        and issubclass(value, Settings)
        and value not in (OutputSettings, PolicySettings, SourceSettings, WorkerSettings)
    }
    assert found == set(VERBS.values())


@pytest.mark.parametrize("model", VERBS.values())
def test_every_setting_is_described_and_has_a_default_within_its_range(model):
    for name, field in model.model_fields.items():
        assert field.description, name
    model(source="a", out="b")  # also validates the defaults


def test_defaults(load):
    settings = load()
    assert (settings.source, settings.out) == ("photos", Path("store"))
    assert settings == EmbedSettings(source="photos", out="store")
    assert settings.model == "scenes"
    assert settings.pruning_policy() == named_policy("balanced")
    assert settings.policy_is_default
    assert not load(text="policy: balanced").policy_is_default


def test_precedence(load, monkeypatch):
    text = "keep_ratio: 0.1\nworkers: 1\nbatch_size: 1\n"
    assert load(text="{}").keep_ratio is None
    assert load(text=text).keep_ratio == 0.1
    monkeypatch.setenv("CLIPSIEVE_EMBED_KEEP_RATIO", "0.2")
    monkeypatch.setenv("CLIPSIEVE_EMBED_WORKERS", "2")
    assert load(text=text).keep_ratio == 0.2
    settings = load("--keep-ratio", "0.3", text=text)
    assert (settings.keep_ratio, settings.workers, settings.batch_size) == (0.3, 2, 1)


def test_a_flag_wins_even_with_the_value_of_the_default(load, monkeypatch):
    monkeypatch.setenv("CLIPSIEVE_EMBED_MODEL", "from-environment")
    assert load("--model", "scenes", text="model: from-file").model == "scenes"
    assert load("--no-random-weights", text="random_weights: true").random_weights is False


def test_a_config_file_named_by_the_environment(load, tmp_path, monkeypatch):
    (tmp_path / "other.yaml").write_text("workers: 3")
    monkeypatch.setenv("CLIPSIEVE_EMBED_CONFIG", str(tmp_path / "other.yaml"))
    assert load().workers == 3


def test_positional_arguments_may_come_from_elsewhere(load, monkeypatch):
    assert load(given=("--out", "store"), text="source: from-file").source == "from-file"
    monkeypatch.setenv("CLIPSIEVE_EMBED_SOURCE", "from-environment")
    assert load(given=("--out", "store"), text="source: from-file").source == "from-environment"
    assert load(text="source: from-file").source == "photos"


def test_yaml_takes_both_spellings(load):
    assert load(text="keep-ratio: 0.4").keep_ratio == load(text="keep_ratio: 0.4").keep_ratio == 0.4


def test_yaml_can_merge_keys(load):
    settings = load(text="<<: {workers: 3, batch_size: 4}\nworkers: 2\n")
    assert (settings.workers, settings.batch_size) == (2, 4)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_config_file_sets_nothing(load, text):
    assert load(text=text).model_dump(exclude={"config"}) == load().model_dump(exclude={"config"})


def test_a_whole_settings_tree_survives_yaml(load):
    settings = load("--keep-ratio", "0.4", "--shard-size", "7", "--captions", "c.tsv", "--precision", "bf16")
    text = yaml.safe_dump(settings.model_dump(mode="json", exclude={"config"}, exclude_none=True, by_alias=True))
    again = load(given=(), text=text)
    assert again.model_dump(exclude={"config"}) == settings.model_dump(exclude={"config"})


# --- unknown and repeated keys


def test_unknown_keys_are_named(load, monkeypatch):
    refuse(load, "--keep-ration", "0.5", message="unrecognized arguments: --keep-ration 0.5")
    refuse(load, "--keep", "0.5", message="unrecognized arguments: --keep 0.5")  # no abbreviations
    refuse(load, text="keep_ration: 0.5", message=r"config.yaml: unknown key 'keep_ration'; known: .*keep_ratio")
    refuse(load, text="1: 0.5", message="unknown key 1")
    monkeypatch.setenv("CLIPSIEVE_EMBED_KEEP_RATION", "0.5")
    refuse(load, message="unknown environment variable CLIPSIEVE_EMBED_KEEP_RATION; known: .*keep_ratio")


def test_variables_of_settings_with_an_alias(monkeypatch):
    # a bare POLICY or FROM in the environment belongs to another program
    monkeypatch.setenv("POLICY", "magic")
    monkeypatch.setenv("FROM", "someone")
    monkeypatch.setenv("CLIPSIEVE_BENCH_MODEL_COMPILE", "true")
    monkeypatch.setenv("CLIPSIEVE_BENCH_MODEL_JSON", "true")
    settings = load_settings(BenchModelSettings, "bench model", [], "")
    assert (settings.policy, settings.compile_tower, settings.as_json) == (None, True, True)
    assert load_settings(AdaptSettings, "adapt", ["--out", "x"], "").adapter is None
    monkeypatch.setenv("CLIPSIEVE_BENCH_MODEL_POLICY", "fast")
    assert load_settings(BenchModelSettings, "bench model", [], "").policy == "fast"


def test_variables_of_other_verbs_and_programs_are_ignored(load, monkeypatch):
    monkeypatch.setenv("CLIPSIEVE_SHARED", "x")
    monkeypatch.setenv("CLIPSIEVE_SEARCH_K", "10")
    assert load() == EmbedSettings(source="photos", out="store")


def test_keys_given_twice_are_named(load):
    refuse(load, text="workers: 1\nworkers: 2", message=r"config.yaml: key 'workers' is given twice")
    refuse(load, text="keep_ratio: 0.1\nkeep-ratio: 0.2", message=r"config.yaml: key 'keep-ratio' is given twice")


# --- values out of range


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--keep-ratio", "1.5"), r"keep_ratio = '1.5': input should be less than or equal to 1"),
        (("--keep-ratio", "0"), r"keep_ratio = '0': input should be greater than 0"),
        (("--keep-ratio", "nan"), r"keep_ratio = 'nan': "),
        (("--batch-size", "0"), r"batch_size = '0': input should be greater than or equal to 1"),
        (("--workers", "two"), r"workers = 'two': input should be a valid integer"),
        (("--policy", "magic"), r"policy = 'magic': expected one of none, "),
        (
            ("--precision", "int4"),
            r"precision = 'int4': input should be 'auto', 'fp32', 'bf16', 'fp16', 'int8', 'fp8' or '8bit'",
        ),
        (
            ("--policy", "none", "--keep-ratio", "0.5"),
            r"keep_ratio = 0.5 only applies to the reference policy; drop policy 'none'",
        ),
        (("--shard-size", "0", "--workers", "0"), r"= '0': .* \(and 1 more\)"),
        (("surplus",), r"unrecognized arguments: surplus"),
    ],
)
def test_bad_flags(load, flags, message):
    refuse(load, *flags, message=rf"^clipsieve embed: .*{message}")


def test_bad_values_elsewhere_give_the_same_errors(load, monkeypatch):
    refuse(load, text="keep_ratio: 1.5", message=r"keep_ratio = 1.5: input should be less than or equal to 1")
    refuse(load, text="keep_ratio: [1]", message=r"keep_ratio = \[1\]: input should be a valid number")
    monkeypatch.setenv("CLIPSIEVE_EMBED_MAX_PIXELS", "-1")
    refuse(load, message=r"max_pixels = '-1': input should be greater than or equal to 1")


def test_missing_settings_are_named(load):
    refuse(load, given=("photos",), message="out is missing; give --out")
    refuse(load, given=("--out", "store"), message="SOURCE")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: [", r"config.yaml is not valid YAML: "),
        ("- workers", r"config.yaml must hold `key: value` lines, found a list"),
        ("[]", r"must hold `key: value` lines, found a list"),
        ("false", r"must hold `key: value` lines, found true or false"),
        ("just text", r"must hold `key: value` lines, found text"),
        ("config: other.yaml", r"cannot name another one"),
    ],
)
def test_bad_yaml(load, text, message):
    refuse(load, text=text, message=message)


def test_unreadable_config(load, tmp_path):
    refuse(load, "--config", str(tmp_path / "none.yaml"), message=r"cannot read --config .*none.yaml: No such file")
    (tmp_path / "bytes.yaml").write_bytes(b"model: \xff")
    refuse(load, "--config", str(tmp_path / "bytes.yaml"), message="is not valid YAML")


def test_help_has_every_flag_and_the_examples(load, capsys):
    with pytest.raises(SystemExit) as caught:
        load("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, field in EmbedSettings.model_fields.items():
        assert (name.upper() if name == "source" else f"--{key_of(name, field).replace('_', '-')}") in text
    assert "clipsieve embed photos --out store" in text
    assert "CLIPSIEVE_EMBED_<SETTING>" in text


def test_model_paths_are_made_absolute(load, tmp_path, monkeypatch):
    # a worker may have another working directory
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("--model", "local-dir:model").model_source().model == f"local-dir:{tmp_path.resolve()}/model"
