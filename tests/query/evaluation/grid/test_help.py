"""`clipsieve sweep --keys`: the whole tree, with type, default and help of every key."""

import re

from query.cli.main import main
from query.evaluation.grid.keys import GridKeys, Keys
from query.evaluation.grid.read import keys_within


def every_key(model=GridKeys, depth=0):
    for name, field in model.model_fields.items():
        yield depth, name, field
        if inner := keys_within(field.annotation):
            yield from every_key(inner, depth + 1)


def test_every_key_is_printed_with_its_help(capsys):
    assert main(["sweep", "--keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = 0
    for depth, name, field in every_key():
        place = next(n for n in range(place, len(lines)) if re.match(rf" {{{2 * depth}}}{name}: \S", lines[n]))
        assert field.description, name
        assert lines[place + 1].strip() in " ".join(field.description.split())
    assert max(map(len, lines)) <= 160


def test_types_and_defaults_are_in_words(capsys):
    main(["sweep", "--keys"])
    text = capsys.readouterr().out
    for line in (
        "data: list of keys, required",
        "  scenes: whole number",
        "  keeps: list of number, default [0.7, 0.5]",
        "  random_weights: true or false, default false",
        "  policies: list of text or keys",
        "precision: auto | fp32 | bf16 | fp16 | int8 | fp8 | 8bit, default auto",
        "mixed: list of pair of text",
        "require: keys by name, each keys",
    ):
        assert f"\n{line}\n" in text
    for wrong in ("None", "PydanticUndefined", "typing", "class"):
        assert wrong not in text.replace("classes", "").replace("class.", "").replace("each class", "")


def test_every_part_of_a_grid_has_a_docstring():
    parts = {keys_within(field.annotation) for _, _, field in every_key()} - {None}
    assert all(part.__doc__ for part in parts)
    assert all(issubclass(part, Keys) for part in parts)
