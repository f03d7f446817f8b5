"""Write data sets in the formats that a sweep reads, and open them."""

import json

from query.evaluation.data.open import open_data
from query.evaluation.grid.keys import DataKeys
from tests.kit.sources import tar_of


def opened(folder, **keys):
    """The data set of these keys. Scenes are drawn into the folder."""
    return open_data(DataKeys(name="mine", **keys), folder)


def keys_of(data):
    return [entry.key for entry in data.entries]


def answers_of(data):
    """The images that answer each query, with their grades, by title."""
    found = {title: {} for title in data.titles}
    for (query, image), grade in zip(data.pairs_P2.tolist(), data.grades_P.tolist(), strict=True):
        found[data.titles[query]][data.entries[image].key] = grade
    return found


def write_tsv(path, captions):
    """A captions file; captions by key."""
    lines = [f"{key}\t{text}\n" for key, texts in captions.items() for text in texts]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_karpathy(path, captions, split="test", others=()):
    """Karpathy's JSON, with its usual fields: captions by key, and images that are of other splits."""
    images = []
    for number, (key, texts) in enumerate(captions.items()):
        filepath, _, filename = key.rpartition("/")
        sentences = [
            {"raw": text, "tokens": text.split(), "imgid": number, "sentid": n} for n, text in enumerate(texts)
        ]
        images.append({"filename": filename, "split": split, "sentences": sentences, "imgid": number, "sentids": []})
        if filepath:
            images[-1]["filepath"] = filepath
    images += [{"filename": name, "split": other, "sentences": []} for name, other in others]
    path.write_text(json.dumps({"images": images, "dataset": "mine"}), encoding="utf-8")
    return path


def write_webdataset(folder, tars, split="test", **texts):
    """A folder in CLIP_benchmark's layout: one tar for each dict of members, and text files by stem."""
    (folder / split).mkdir(parents=True)
    for number, members in enumerate(tars):
        (folder / split / f"{number}.tar").write_bytes(tar_of(members))
    (folder / split / "nshards.txt").write_text(f"{len(tars)}\n")
    for stem, text in texts.items():
        (folder / f"{stem}.txt").write_text(text)
    return folder
