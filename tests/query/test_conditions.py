"""The conditions of `evaluate`: their names, their folders, and what reaches `embed`."""

import pytest

from pipeline.errors import ConfigError
from pipeline.settings.load import load_settings
from query.evaluation.conditions import conditions_of, embed_settings
from query.settings import EvaluateSettings

SCHEDULE = "schedule: {kind: constant, removed: 0.05}\n"


@pytest.fixture
def conditions(tmp_path):
    """The conditions for some names of policies, each in a file of its own; and the settings."""

    def make(*names, **more):
        paths = []
        for number, name in enumerate(names):
            paths.append(tmp_path / f"{number}.yaml")
            paths[-1].write_text(f'name: "{name}"\n' + SCHEDULE, encoding="utf-8")
        settings = EvaluateSettings(
            images=tmp_path, captions=tmp_path / "c.tsv", policy=",".join(map(str, paths)), **more
        )
        return settings, conditions_of(settings)

    return make


def test_the_folders_of_plain_names_do_not_change(conditions, tmp_path):
    settings, found = conditions("mine-2.0_(a+b)", adapter="scenes", control="scenes")
    names = ["none", "none+control", "mine-2.0_(a+b)", "mine-2.0_(a+b)+adapter"]
    assert [condition.name for condition in found] == names
    assert [embed_settings(settings, condition, tmp_path).out for condition in found] == [tmp_path / n for n in names]


def test_each_precision_has_every_condition_but_the_control(conditions, tmp_path):
    settings, found = conditions("mine", adapter="scenes", control="scenes", precision="fp32, int8")
    names = ["none", "none+control", "mine", "mine+adapter", "none+int8", "mine+int8", "mine+adapter+int8"]
    assert [condition.name for condition in found] == names
    made = [embed_settings(settings, condition, tmp_path) for condition in found]
    assert [one.precision for one in made] == ["fp32"] * 4 + ["int8"] * 3
    assert [one.out.name for one in made] == names
    assert made[-1].adapter == "scenes"


def test_one_precision_leaves_names_as_they_are(conditions, tmp_path):
    settings, found = conditions("mine", precision="int8")
    assert [condition.name for condition in found] == ["none", "mine"]
    assert {embed_settings(settings, condition, tmp_path).precision for condition in found} == {"int8"}


@pytest.mark.parametrize("precision", ["fp32,int4", "", ",", "int8,fp32,int8"])
def test_a_list_of_precisions_that_is_wrong(tmp_path, precision):
    argv = ["--images", "x", "--captions", "y", "--precisions", precision]
    with pytest.raises(ConfigError, match=r"precision = .*: (expected precisions among auto|a precision is named)"):
        load_settings(EvaluateSettings, "evaluate", argv, "")


@pytest.mark.parametrize(
    "name", ["../../evil", "/evil", "..", ".", "~", "a/b", "two words", ".hidden", "ünï", "x" * 99]
)
def test_no_name_leaves_the_folder(conditions, tmp_path, name):
    settings, found = conditions(name, adapter="scenes")
    folders = [embed_settings(settings, condition, tmp_path).out for condition in found]
    assert {folder.resolve().parent for folder in folders} == {tmp_path.resolve()}
    assert len(set(folders)) == len(folders) == 3
    for folder in folders:
        assert folder.name.isascii()
        assert len(folder.name) < 110
        assert not folder.name.startswith(".")


def test_names_that_become_alike_have_folders_of_their_own(conditions):
    _, (_, first, second) = conditions("a b", "a/b")
    assert first.folder != second.folder
    assert first.folder.startswith("a_b-")


@pytest.mark.parametrize("name", ["results", "Results"])
def test_no_store_takes_the_folder_of_the_raw_results(conditions, name):
    _, (_, found) = conditions(name)
    assert found.folder.lower().startswith("results-")


def test_names_that_differ_only_by_case_are_refused(tmp_path):
    for name in ("Mine", "mine2"):
        (tmp_path / f"{name}.yaml").write_text(SCHEDULE)
    (tmp_path / "mine2.yaml").write_text("name: mine\n" + SCHEDULE)
    argv = ["--images", "x", "--captions", "y", "--policies", f"{tmp_path}/Mine.yaml,{tmp_path}/mine2.yaml"]
    with pytest.raises(ConfigError, match="two policies share a name"):
        load_settings(EvaluateSettings, "evaluate", argv, "")


def test_changed_images_are_embedded_again_and_a_folder_is_a_folder(conditions, tmp_path):
    settings, found = conditions("mine")
    for condition in found:
        made = embed_settings(settings, condition, tmp_path)
        assert (made.on_change, made.input_format) == ("embed", "folder")
