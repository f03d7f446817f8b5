"""Contact sheets: every hit has its tile, in any script and format, and a missing image loses only its own."""

import pytest
from PIL import Image

from pipeline.errors import ConfigError
from query.hits.hit import Hit
from query.pictures import lettering
from query.pictures.lettering import font_for, lines_of, missing_in, one_line
from query.pictures.sheet import write_sheet
from tests.kit.hits import hits_of


def files(folder, num_hits, **changes):
    return hits_of(
        [
            Hit(
                rank=n + 1, id=n, key=f"{n}.png", uri=(folder / f"{n}.png").as_uri(), score=0.5, caption=None, **changes
            )
            for n in range(num_hits)
        ]
    )


def test_rows_wrap(tmp_path):
    for number in range(8):
        Image.new("RGB", (30, 20), (200, 0, 0)).save(tmp_path / f"{number}.png")
    write_sheet(tmp_path / "six.png", [("red", files(tmp_path, 6))])
    write_sheet(tmp_path / "eight.png", [("red", files(tmp_path, 8))])
    with Image.open(tmp_path / "six.png") as six, Image.open(tmp_path / "eight.png") as eight:
        assert six.width == eight.width
        assert eight.height > six.height
        reds = [sum(n for n, colour in image.getcolors(10**6) if colour == (200, 0, 0)) for image in (six, eight)]
    assert reds == [6 * 160 * 160, 8 * 160 * 160]


def test_an_image_that_cannot_be_opened_has_a_grey_tile_that_says_why(tmp_path):
    Image.new("RGB", (30, 20), (200, 0, 0)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_text("no image")
    warnings = write_sheet(tmp_path / "sheet.png", [("red \n query", files(tmp_path, 3)), ("none", hits_of([]))])
    with Image.open(tmp_path / "sheet.png") as sheet:
        counts = {colour: n for n, colour in sheet.getcolors(10**6)}
        tiles = [sheet.crop((left, 46, left + 160, 206)) for left in (12 + 172, 12 + 2 * 172)]
    assert counts[(200, 0, 0)] == 160 * 160
    for tile in tiles:
        colours = {colour: n for n, colour in tile.getcolors(10**6)}
        assert 160 * 160 // 2 < colours[(225, 226, 230)] < 160 * 160  # grey, with ink on it
        assert (28, 30, 36) in colours
    [warning] = warnings
    assert warning.startswith("2 of 3 images cannot be shown on the sheet, first '1.png' (")


def test_reasons_that_are_long_stay_on_their_tile():
    font = font_for("", 12)
    lines = lines_of("/a/path/without/blanks" * 12, font, 148, 8)
    assert len(lines) == 8
    assert lines[-1].endswith("...")
    assert max(font.getlength(line) for line in lines) <= 148


@pytest.mark.parametrize(
    ("name", "kind"), [("s.png", "PNG"), ("s.jpg", "JPEG"), ("s.JPEG", "JPEG"), ("s.webp", "WEBP"), ("sheet", "PNG")]
)
def test_the_suffix_decides_the_format(tmp_path, name, kind):
    write_sheet(tmp_path / name, [("none", hits_of([]))])
    with Image.open(tmp_path / name) as sheet:
        assert sheet.format == kind


def test_a_sheet_that_is_too_long_for_its_format(tmp_path):
    with pytest.raises(ConfigError, match=r"s.jpg would be 1044 x \d+ pixels, and a JPEG has at most 65535 a side"):
        write_sheet(tmp_path / "s.jpg", [(str(number), hits_of([])) for number in range(300)])
    assert list(tmp_path.iterdir()) == []


# --- scripts


@pytest.fixture
def fonts(monkeypatch):
    """Chooses the fonts that the machine is said to have, besides Pillow's own."""

    def choose(*names):
        lettering._fonts.cache_clear()
        monkeypatch.setattr(lettering, "_FONTS", ("", *names))

    yield choose
    lettering._fonts.cache_clear()


def test_a_font_with_the_script_is_looked_for(fonts):
    pytest.importorskip("matplotlib")  # it brings a font along
    import matplotlib

    fonts(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf")
    assert font_for("two dogs", 17).getname()[0] == "Aileron"
    for text in ("два пса", "שני כלבים", "δύο σκύλοι"):
        font = font_for(text, 17)
        assert font.getname()[0] == "DejaVu Sans"
        assert missing_in(font, text) == set()
        assert one_line(text, font, 500) == text


def test_a_script_without_a_font_is_said(fonts, tmp_path):
    fonts("no-such-font.ttf")
    font = font_for("2 狗 dogs", 17)
    assert one_line("2 狗 dogs", font, 500) == "2 ? dogs"
    [warning] = write_sheet(tmp_path / "s.png", [("2 狗 dogs", hits_of([])), ("a cat", hits_of([]))])
    assert warning.startswith("no font on this machine has the characters 狗; ")
