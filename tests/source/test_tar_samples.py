"""Which texts of a tar reach which images: examples, and random tars against the rule written out plainly."""

import random
import re

from pipeline.errors import InputError
from pipeline.source.formats.tar import samples as tar_samples
from pipeline.source.formats.tar.samples import Member, Samples
from pipeline.source.left_out import Kind

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Reader:
    """Reads members by name; keeps what is noted, and how many members were held at most."""

    def __init__(self):
        self.noted = {Kind.TEXT_WITHOUT_IMAGE: [], Kind.IMAGE_WITHOUT_TEXT: []}
        self.images = []
        self.most_held = 0

    def read(self, names, num_bytes=1):
        samples = Samples("x.tar", lambda kind, name: self.noted[kind].append(name))
        found = {}
        for run in samples.of(self._members(names, num_bytes)):
            for sample in run:
                texts = tuple(text.name if text else None for text in (sample.txt, sample.json))
                found[sample.image.name] = texts
                self.images.append(sample.image.name)
        return found

    def _members(self, names, num_bytes):
        for num_read, name in enumerate(names, start=1):
            num_done = names.index(self.images[-1]) + 1 if self.images else 0
            self.most_held = max(self.most_held, num_read - num_done)
            yield Member(name, num_bytes, 0)


def texts_of(*names):
    """The text of each image: `.txt` and `.json`, or only one where the other is None."""
    found = Reader().read(names)
    return {name: next(filter(None, texts), None) for name, texts in found.items()}


def test_names_with_dots():
    assert texts_of("v1.0.jpg", "v1.0.json", "v1.1.jpg", "v1.1.json") == {
        "v1.0.jpg": "v1.0.json", "v1.1.jpg": "v1.1.json",
    }  # fmt: skip
    assert texts_of("2024.01.02 a.jpg", "2024.01.02 a.txt", "2024.01.02 b.jpg", "2024.01.02 b.txt") == {
        "2024.01.02 a.jpg": "2024.01.02 a.txt", "2024.01.02 b.jpg": "2024.01.02 b.txt",
    }  # fmt: skip
    assert texts_of("shot 1.5m.jpg", "shot 1.5m.txt", "shot 1.7m.jpg") == {
        "shot 1.5m.jpg": "shot 1.5m.txt", "shot 1.7m.jpg": None,
    }  # fmt: skip
    assert texts_of("img.1.jpg", "img.1.txt", "img.2.jpg") == {"img.1.jpg": "img.1.txt", "img.2.jpg": None}


def test_a_standard_sample():
    names = ["000.cls.png", "000.jpg", "000.json", "000.left.jpg", "000.right.jpg", "000.seg.png", "000.txt"]
    assert Reader().read(names) == {name: ("000.txt", "000.json") for name in names if name.endswith((".jpg", ".png"))}


def test_a_text_named_after_the_whole_file_name():
    names = ("photo.jpg", "photo.jpg.json", "photo.json", "photo.png")
    assert texts_of(*names) == {"photo.jpg": "photo.jpg.json", "photo.png": "photo.json"}


def test_a_text_for_all_frames():
    assert texts_of("0001.0.jpg", "0001.1.jpg", "0001.json") == dict.fromkeys(("0001.0.jpg", "0001.1.jpg"), "0001.json")
    # but not if an image has the name of the text
    assert texts_of("0001.0.jpg", "0001.jpg", "0001.json") == {"0001.0.jpg": None, "0001.jpg": "0001.json"}
    assert texts_of("a.png", "a.png.1.jpg", "a.png.txt") == {"a.png": "a.png.txt", "a.png.1.jpg": None}


def test_the_longest_name_wins_for_each_kind_of_text():
    names = ["a.json", "a.left.jpg", "a.left.txt", "a.right.jpg", "a.txt"]
    assert Reader().read(names) == {"a.left.jpg": ("a.left.txt", "a.json"), "a.right.jpg": ("a.txt", "a.json")}


def test_texts_and_images_without_each_other_are_counted():
    reader = Reader()
    names = ["001.jpg", "001.json", "001.pose.json", "001.url.txt", "002.1.jpg", "002.1.txt", "002.2.jpg", "003.jpg",
             "004.txt"]  # fmt: skip
    found = reader.read(names)
    assert found["001.jpg"] == (None, "001.json")
    assert reader.noted == {
        Kind.TEXT_WITHOUT_IMAGE: ["001.pose.json", "001.url.txt", "004.txt"],
        Kind.IMAGE_WITHOUT_TEXT: ["002.2.jpg"],  # not 003.jpg: its group has no texts
    }


# --- against the rule


def belongs(text, image, images):
    """The rule, written out: whether a text belongs to an image of its group."""
    name, (stem, _, _) = text.rsplit(".", 1)[0], image.rpartition(".")
    if name in (image, stem):
        return True
    if not stem.startswith(f"{name}."):
        return False
    fields = stem.removeprefix(f"{name}.").split(".")
    return all(map(WORD.fullmatch, fields)) or not any(name in (other, other.rpartition(".")[0]) for other in images)


def expected(names):
    found = {}
    for group in {name.split(".")[0] for name in names}:
        members = [name for name in names if name.split(".")[0] == group]
        images = [name for name in members if not name.endswith((".txt", ".json"))]
        for image in images:
            texts = [name for name in members if name not in images and belongs(name, image, images)]
            kinds = [[text for text in texts if text.endswith(end)] for end in (".txt", ".json")]
            found[image] = tuple(max(kind, key=len) if kind else None for kind in kinds)
    return found


def random_group(choose, key):
    fields = ["0", "1", "01", "left", "seg", "5m", "02 a", "jpg", "_x-1", "é", ""]
    names = set()
    for _ in range(choose.randint(1, 8)):
        middle = "".join(f".{choose.choice(fields)}" for _ in range(choose.choice((0, 0, 1, 1, 2, 3))))
        names.add(f"{key}{middle}.{choose.choice(('jpg', 'png', 'txt', 'json', 'txt', 'json'))}")
    names = sorted(names)
    choose.shuffle(names)
    return names


def test_random_tars_follow_the_rule():
    choose = random.Random(0)
    num_texts = 0
    for _ in range(2000):
        groups = [random_group(choose, key) for key in ("a", "b", "2024")]
        names = [name for group in groups for name in group]
        reader = Reader()
        found = reader.read(names)
        assert found == expected(names), names
        assert reader.images == [name for name in names if name in found]  # the order of the tar
        given = {text for texts in found.values() for text in texts} - {None}
        num_texts += len(given)
        assert sorted(reader.noted[Kind.TEXT_WITHOUT_IMAGE]) == sorted(set(names) - found.keys() - given)
        with_texts = {name.split(".")[0] for name in set(names) - found.keys()}
        assert reader.noted[Kind.IMAGE_WITHOUT_TEXT] == [
            name for name in reader.images if found[name] == (None, None) and name.split(".")[0] in with_texts
        ]
    assert num_texts > 2000


def is_too_late(names):
    """Whether a text comes after an image that it may belong to."""
    pairs = [(image, text) for number, image in enumerate(names) for text in names[number + 1 :]]
    return any(
        image.endswith(("jpg", "png")) and text.endswith(("txt", "json")) and belongs(text, image, [])
        for image, text in pairs
        if image.split(".")[0] == text.split(".")[0]
    )


def test_large_groups_never_give_an_image_the_text_of_another(monkeypatch):
    monkeypatch.setattr(tar_samples, "MAX_IMAGES", 1)
    choose = random.Random(1)
    num_late = num_given = 0
    for _ in range(2000):
        names = [name for key in ("a", "b") for name in random_group(choose, key)]
        wanted = expected(names)
        try:
            found = Reader().read(names)
        except InputError:
            assert is_too_late(names), names
            num_late += 1
            continue
        for image, texts in found.items():
            assert all(text in (None, right) for text, right in zip(texts, wanted[image], strict=True)), names
        num_given += sum(text is not None for texts in found.values() for text in texts)
    assert num_late > 100
    assert num_given > 1000


def test_members_in_any_order_are_an_error_only_if_a_text_comes_after_its_image():
    choose = random.Random(2)
    num_late = 0
    for _ in range(2000):
        names = [name for key in ("a", "b") for name in random_group(choose, key)]
        choose.shuffle(names)
        reader = Reader()
        try:
            found = reader.read(names)
        except InputError:
            assert is_too_late(names), names
            num_late += 1
            continue
        assert reader.images == [name for name in names if name in expected(names)]
        for image, texts in found.items():
            assert all(text is None or belongs(text, image, []) for text in texts), names
    assert 100 < num_late < 1900


# --- large groups


def test_a_tar_that_is_one_large_group():
    stems = [f"2024.01.02 {number:04d}" for number in range(1000)]
    names = [f"{stem}{end}" for stem in stems for end in (".jpg", ".json", ".seg.png", ".txt")]
    reader = Reader()
    found = reader.read(names)
    assert found == {f"{stem}{end}": (f"{stem}.txt", f"{stem}.json") for stem in stems for end in (".jpg", ".seg.png")}
    assert reader.images == [name for name in names if name in found]
    assert reader.most_held < 3 * tar_samples.MAX_IMAGES
    assert not any(reader.noted.values())


def test_many_large_images_of_one_group_are_not_held():
    names = [f"2024.01.02 {number:04d}{end}" for number in range(200) for end in (".jpg", ".txt")]
    reader = Reader()
    found = reader.read(names, num_bytes=10**7)
    assert all(texts == (f"{image.removesuffix('.jpg')}.txt", None) for image, texts in found.items())
    assert reader.most_held < 3 * tar_samples.FEW


def test_the_large_images_of_one_sample_stay_together():
    names = ["a.left.tif", "a.right.tif", "a.txt"]
    found = Reader().read(names, num_bytes=tar_samples.MAX_BYTES)
    assert found == dict.fromkeys(names[:2], ("a.txt", None))


def test_frames_of_a_large_group_are_counted_if_their_text_is_not_of_the_same_name():
    reader = Reader()
    frames = [f"0001.{number}.jpg" for number in range(tar_samples.MAX_IMAGES + 1)]
    found = reader.read(["0001.json", *frames])
    assert set(found.values()) == {(None, None)}
    assert reader.noted == {Kind.TEXT_WITHOUT_IMAGE: ["0001.json"], Kind.IMAGE_WITHOUT_TEXT: frames}


def test_texts_are_kept_for_later_images_only_as_long_as_memory_lasts(monkeypatch):
    names = ["a.txt", "b.txt", "b.jpg", "a.jpg"]
    assert texts_of(*names) == {"a.jpg": "a.txt", "b.jpg": "b.txt"}
    monkeypatch.setattr(tar_samples, "MAX_BYTES", 0)
    reader = Reader()
    assert reader.read(names) == {"a.jpg": (None, None), "b.jpg": ("b.txt", None)}
    assert reader.noted == {Kind.TEXT_WITHOUT_IMAGE: ["a.txt"], Kind.IMAGE_WITHOUT_TEXT: ["a.jpg"]}
