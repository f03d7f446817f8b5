"""Built-in texts that are as varied as what people type into a search: words, lists of words, captions, sentences."""

import random
import re
from collections.abc import Iterator

from pipeline.scenes.collection import NUM_TEMPLATES, caption, sample_scene
from query.proof.words import IRREGULAR, WORDS

SHAPES = {
    "noun": (
        6,
        ["{thing}", "{thing+}", "{look} {thing}", "{colour} {item}", "{scene}", "{sport}", "{vehicle}", "{animal}"],
    ),
    "photo": (
        7,
        [
            "a {photo} of a {thing}",
            "a {photo} of a {look} {item}",
            "a {photo} of a {life}",
            "a {photo} of a {person} {act}",
            "a {photo} of {count} {thing+}",
            "a {photo} of the {scene} {when}",
            "{photo} of {thing+}",
            "{photo} of {sport}",
            "a {style} of a {thing}",
            "{mood} {photo} of a {scene}",
        ],
    ),
    "words": (
        12,
        [
            "{person} {act}",
            "{group} {act}",
            "{life}",
            "{traffic}",
            "{animal}, {look}",
            "{dog} {dog_place}",
            "{wild} {zoo}",
            "{person} {sport_act}",
            "{person}, {colour} {clothing}",
            "{kid} {kid_act}",
            "{food} {table}",
            "{food} and {drink}",
            "{mood} {scene}",
            "{scene} {when}",
            "{sport} {person}",
            "{vehicle} {when}",
            "{room} {furniture} {homeware}",
            "{item} {material}",
            "{thing}, {thing}",
            "sign that says {text}",
        ],
    ),
    "asked": (
        4,
        [
            "where is the {look} {item}",
            "what does a {animal} look like",
            "show me {animal+}",
            "who is {act}",
            "pictures of {thing+} without people",
            "is there a {life}",
            "how to use a {item}",
            "find the {person} with the {carried}",
            "i need a {photo} of a {scene} {when}",
        ],
    ),
    "caption": (
        50,
        [
            *["a {person} {act}"] * 5,
            *["a {person} {pose}"] * 2,
            "a {person} {pose} {when}",
            *["{group} {act}"] * 3,
            "{group} {pose}",
            *["a {person} in a {colour} {clothing} {act}", "a {person} in a {colour} {clothing} is {pose}"] * 2,
            "a {person} and a {person} {act}",
            *["a {kid} {kid_act} {play}", "a {kid} {kid_act}"] * 2,
            *["a {life}"] * 8,
            "a {colour} {dog} and a {dog} {dog_act} {dog_place}",
            "two {dog+} {dog_act} {dog_place}",
            "{count} {farm+} {graze} {grass}",
            "{count} {bird+} {perching} {perch}",
            "{count} {wild+} {roam} {zoo}",
            "a {person} riding a {farm} {grass}",
            *["a {traffic}"] * 4,
            "a {colour} {traffic}",
            "{count} {boat+} {sail}",
            "{count} {road+} {street}",
            "a {road} next to a {road} {street}",
            *["a {food} {table}", "a {food} and a {drink} {table}", "a plate with a {food} and {produce+}"] * 2,
            "{count} {produce+} {table}",
            "a kitchen with a {kitchenware} and a {kitchenware}",
            "a bathroom with a {bathware} and a {bathware}",
            "a {room} with a {furniture} and a {homeware}",
            "a desk with a {office} and a {office} on it",
            "a {electronics} {surface}",
            "a {look} {trinket} {surface}",
            "a {toy} {surface}",
            "a {colour} {street_item} {street}",
            "a {building} {when}",
            "a {building} near a {landscape}",
        ],
    ),
    "sentence": (
        20,
        [
            *["The {person} is {act}.", "A {person} is {act}."] * 3,
            *["{group} are {act}.", "{group} are {act} {when}."],
            "There is a {life}.",
            "The {dog} is {dog_act} {dog_place}.",
            "A {kid} is {kid_act} {play} {when}.",
            "A {person} wearing a {colour} {clothing} and {footwear} is {act}.",
            "A {person} in a {clothing} and a {person} in a {clothing} are {pose}.",
            "A {room} that has a {look} {furniture}, a {homeware} and a {homeware} in it.",
            "There is a {traffic} {when}.",
            "While a {person} is {pose}, a {person} is {pose}.",
            "A {person} holds a {carried} and looks at a {animal}.",
            "A {quality} {building} with a {colour} roof and a {street_item} in front of it.",
            "A {food} sits next to a {drink} and {produce+} {table}.",
            "There are {count} {road+} and {count} {road+} {street} {when}.",
        ],
    ),
}
"""Weight and templates of each shape of text. The templates have the slots of `WORDS`."""

_SLOT = re.compile(r"\{(\w+)(\+?)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio]|u(?!ni|ku|se)|hour)")
_SKEW = 2.5  # 1 picks all entries of a kind equally often; more, the first ones more often
_FINISHED = 0.3  # share of captions that are written as sentences


def built_in_texts(num_texts: int, seed: int = 0) -> list[str]:
    """Different texts, the same for the same arguments. A longer list begins with the shorter one.

    Args:
        num_texts: How many.
        seed: Selects another sequence.
    """
    texts: dict[str, None] = {}
    for _, text in shaped_texts(seed):
        if len(texts) == num_texts:
            break
        texts[text] = None
    return list(texts)


def scene_texts(num_texts: int, seed: int = 0) -> list[str]:
    """Different texts on the scenes that the built-in model draws, as `built_in_texts` makes them on photographs."""
    rng = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < num_texts:
        scene = sample_scene(rng)
        thing = scene.objects[0]
        short = f"a {thing.size} {thing.colour} {thing.shape}"
        forms = [
            caption(scene, rng.randrange(NUM_TEMPLATES)),
            caption(scene, rng.randrange(NUM_TEMPLATES)),
            f"{short} at the {thing.place}",
            f"{short} and a {scene.objects[1].colour} {scene.objects[1].shape}",
            f"{short} on a {scene.texture} {scene.tint} background",
            short,
        ]
        texts[rng.choice(forms)] = None
    return list(texts)


def shaped_texts(seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield texts without end, each after the name of its shape. Some repeat."""
    rng = random.Random(seed)
    weights = [weight for weight, _ in SHAPES.values()]
    while True:
        [shape] = rng.choices(list(SHAPES), weights)
        text = _ARTICLE.sub(r"\1n ", _filled(rng.choice(SHAPES[shape][1]), rng))
        if shape == "sentence" or (shape == "caption" and rng.random() < _FINISHED):
            text = f"{text[0].upper()}{text[1:].removesuffix('.')}."
        yield shape, text


def _filled(template: str, rng: random.Random) -> str:
    """A template with an entry in each of its slots."""

    def fill(slot: re.Match[str]) -> str:
        entry = _filled(_common(WORDS[slot[1]], rng), rng)
        return _plural(entry) if slot[2] else entry

    return _SLOT.sub(fill, template)


def _common(entries: list[str], rng: random.Random) -> str:
    """An entry, the first ones most often, as people use words."""
    return entries[int(len(entries) * rng.random() ** _SKEW)]


def _plural(singular: str) -> str:
    head, of, rest = singular.partition(" of ")
    before, space, word = head.rpartition(" ")
    if word in IRREGULAR:
        word = IRREGULAR[word]
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        word += "es"
    elif word.endswith("y") and word[-2] not in "aeiou":
        word = word[:-1] + "ies"
    elif word.endswith("man"):
        word = word[:-3] + "men"
    else:
        word += "s"
    return before + space + word + of + rest
