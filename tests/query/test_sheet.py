"""Contact sheets: every hit has its tile, and a missing image loses only its own."""

from PIL import Image

from query.pictures.sheet import write_sheet
from query.searcher import Hit


def hits_of(folder, num_hits):
    return [
        Hit(rank=n + 1, id=n, key=f"{n}.png", uri=(folder / f"{n}.png").as_uri(), score=0.5, caption=None)
        for n in range(num_hits)
    ]


def test_rows_wrap(tmp_path):
    for number in range(8):
        Image.new("RGB", (30, 20), (200, 0, 0)).save(tmp_path / f"{number}.png")
    write_sheet(tmp_path / "six.png", [("red", hits_of(tmp_path, 6))])
    write_sheet(tmp_path / "eight.png", [("red", hits_of(tmp_path, 8))])
    with Image.open(tmp_path / "six.png") as six, Image.open(tmp_path / "eight.png") as eight:
        assert six.width == eight.width
        assert eight.height > six.height
        reds = [sum(n for n, colour in image.getcolors(10**6) if colour == (200, 0, 0)) for image in (six, eight)]
    assert reds == [6 * 160 * 160, 8 * 160 * 160]


def test_a_missing_image_is_a_grey_square(tmp_path):
    Image.new("RGB", (30, 20), (200, 0, 0)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_text("no image")
    write_sheet(tmp_path / "sheet.png", [("red \n query", hits_of(tmp_path, 3)), ("none", [])])
    with Image.open(tmp_path / "sheet.png") as sheet:
        counts = {colour: n for n, colour in sheet.getcolors(10**6)}
    assert counts[(200, 0, 0)] == 160 * 160
    assert counts[(225, 226, 230)] == 2 * 160 * 160
