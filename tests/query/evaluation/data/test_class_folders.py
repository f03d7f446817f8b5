"""Class folders: names, prompts, and what does not belong to a class."""

import shutil

import pytest

from pipeline.errors import InputError
from tests.kit.data_sets import answers_of, keys_of, opened


@pytest.fixture
def folder(tmp_path, photos):
    root = tmp_path / "classes"
    for key in ("owl/a.jpg", "owl/deep/b.jpg", "Red_fox/a.jpg"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "photo-02.jpg", root / key)
    return root


def test_each_folder_is_a_class_that_its_images_answer(folder, tmp_path):
    data = opened(tmp_path, classes=folder)
    assert data.kind == "classes"
    assert data.titles == ["Red fox", "owl"]
    assert answers_of(data) == {"Red fox": {"Red_fox/a.jpg": 1.0}, "owl": {"owl/a.jpg": 1.0, "owl/deep/b.jpg": 1.0}}
    assert data.prompts == [["a photo of a Red fox."], ["a photo of a owl."]]
    assert keys_of(data) == sorted(keys_of(data))


def test_templates_make_the_prompts(folder, tmp_path):
    (tmp_path / "templates.txt").write_text("a {c}.\n\n{c}, {d} and {{c}}\n")
    data = opened(tmp_path, classes=folder, templates=tmp_path / "templates.txt")
    assert data.prompts[1] == ["a owl.", "owl, {d} and {owl}"]


def test_images_beside_the_class_folders_are_counted(folder, tmp_path):
    for name in ("loose.jpg", "zebra.jpg"):
        shutil.copy(folder / "owl" / "a.jpg", folder / name)
    data = opened(tmp_path, classes=folder)
    assert data.counts["num_without_class"] == 2
    assert data.counts["num_images"] == len(data.pairs_P2) == 3


def test_hidden_folders_are_no_classes(folder, tmp_path):
    (folder / ".git").mkdir()
    (folder / "__MACOSX").mkdir()
    assert opened(tmp_path, classes=folder).titles == ["Red fox", "owl"]


def test_a_class_folder_without_images_is_an_error(folder, tmp_path):
    (folder / "newt").mkdir()
    (folder / "newt" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"class folder \S+classes/newt has no images"):
        opened(tmp_path, classes=folder)


def test_a_class_folder_that_is_a_link_is_not_passed_over(folder, tmp_path):
    (folder / "newt").symlink_to(folder / "owl")
    with pytest.raises(InputError, match=r"newt has no images; .*links to folders are not followed"):
        opened(tmp_path, classes=folder)


def test_a_folder_without_class_folders_is_an_error(photos, tmp_path):
    (tmp_path / "flat").mkdir()
    shutil.copy(photos / "photo-02.jpg", tmp_path / "flat")
    with pytest.raises(InputError, match="flat has no class folders"):
        opened(tmp_path, classes=tmp_path / "flat")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a photo\n", "templates.txt, line 1: expected {c} .*found 'a photo'"), ("", "is empty"), (None, "cannot read")],
)
def test_bad_templates_are_an_error(folder, tmp_path, text, message):
    if text is not None:
        (tmp_path / "templates.txt").write_text(text)
    with pytest.raises(InputError, match=f"data set 'mine': .*templates file .*{message}|{message} templates file"):
        opened(tmp_path, classes=folder, templates=tmp_path / "templates.txt")
