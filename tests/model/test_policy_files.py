"""Policies that users write: what a file may hold, and what its name may be."""

import codecs
import re

import pytest

from pipeline.errors import ConfigError
from pipeline.model.pruning.policy import PruningPolicy, choose_policy, named_policy

SCHEDULE = "schedule: {kind: constant, removed: 0.05}\n"


@pytest.fixture
def write(tmp_path):
    def write(data, name="mine.yaml"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    return write


def test_a_policy_file(write):
    path = write("score: cls_attn\nreduce: drop\n" + SCHEDULE)
    assert choose_policy(path, None) == PruningPolicy(
        name="mine", score="cls_attn", reduce="drop", schedule={"kind": "constant", "removed": 0.05}
    )


@pytest.mark.parametrize("name", ["mine.YAML", "mine.Yml", "mine.yml"])
def test_the_case_of_the_suffix_does_not_matter(write, name):
    assert named_policy(write(SCHEDULE, name)).name == "mine"


def test_keys_can_be_merged(write):
    path = write("schedule:\n  kind: stages\n  cuts:\n  - &cut {depth: 0.25, keep: 0.7}\n  - {<<: *cut, depth: 0.5}\n")
    assert [(cut.depth, cut.keep) for cut in named_policy(path).schedule.cuts] == [(0.25, 0.7), (0.5, 0.7)]


def test_utf_16_with_a_mark(write):
    assert named_policy(write(codecs.BOM_UTF16_LE + SCHEDULE.encode("utf-16-le"))).schedule.removed == 0.05


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("score: magic\n", r"mine.yaml: score = 'magic': .*'l2'"),
        ("", r"policy .*mine.yaml must hold `key: value` lines, found nothing; give at least a `schedule`"),
        ("# only a comment\n", "found nothing"),
        ("- a list\n", "found a list"),
        ("just text\n", "found text"),
        ("7\n", "found a single value"),
        ("score: l2\nscore: grid\n", "key 'score' is given twice; keep one"),
        ("score: [\n", "mine.yaml is not valid YAML: .*; give one of none, "),
        (b"score: \xff\n", "mine.yaml is not valid YAML"),
    ],
)
def test_files_that_hold_no_policy(write, data, message):
    with pytest.raises(ConfigError, match=message) as caught:
        named_policy(write(data))
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read policy .*none.yaml: No such file"):
        named_policy(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("name", ["none", "open_clip", " None", "OPEN_CLIP", "none+control", "fast+adapter"])
def test_the_names_of_baselines_are_refused(write, name):
    with pytest.raises(ConfigError, match=rf"name = .*{re.escape(name.strip())}' is the name of a baseline; give"):
        named_policy(write(f"name: '{name}'\n" + SCHEDULE))


def test_a_file_named_like_a_baseline_needs_another_name(write):
    with pytest.raises(ConfigError, match="name = 'none' is the name of a baseline"):
        named_policy(write(SCHEDULE, "none.yaml"))
    assert named_policy(write("name: other\n" + SCHEDULE, "none.yaml")).name == "other"


def test_a_built_in_name_stays_with_the_built_in_policy(write):
    with pytest.raises(ConfigError, match="name = 'balanced' is the name of a built-in policy, which differs; add"):
        named_policy(write(SCHEDULE, "balanced.yaml"))
    same = named_policy("fast").model_dump_json(exclude={"name"}, exclude_none=True)  # JSON is YAML
    assert named_policy(write(same, "fast.yaml")) == named_policy("fast")


@pytest.mark.parametrize("name", ["", "  ", "two\\nlines", "\\u202eesrever", "x" * 101])
def test_names_that_cannot_be_shown_are_refused(write, name):
    with pytest.raises(ConfigError, match="expected 1 to 100 printable characters; rename it"):
        named_policy(write(f'name: "{name}"\n' + SCHEDULE))
