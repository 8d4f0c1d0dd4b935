"""Pictures put together: nothing of them, of their names or of the legend is lost."""

import numpy as np
import pytest
from PIL import Image

from skipless.data.captioned import GAP, captioned_grid, draw_boxes_

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def panels(sizes: list[tuple[int, int]]) -> list[Image.Image]:
    return [Image.new("RGB", size, COLOURS[place % 3]) for place, size in enumerate(sizes)]


def ink(picture: Image.Image) -> np.ndarray:
    """Where something darker than the ground is, but for the panels."""
    pixels = np.asarray(picture)
    return (pixels.max(-1) < 200) & (pixels.max(-1) - pixels.min(-1) < 20)


def test_pictures_are_as_they_were() -> None:
    rows = [panels([(40, 30), (60, 20)]), panels([(50, 25)])]
    picture = np.asarray(captioned_grid(rows))
    assert picture.shape == (30 + 25 + 3 * GAP, 50 + 60 + 3 * GAP, 3)  # columns are as wide as their widest
    for (left, top), (width, height), colour in (
        ((GAP, GAP), (40, 30), COLOURS[0]),
        ((GAP + 50 + GAP, GAP), (60, 20), COLOURS[1]),
        ((GAP, GAP + 30 + GAP), (50, 25), COLOURS[0]),
    ):
        assert (picture[top : top + height, left : left + width] == colour).all()
    assert sum((picture == colour).all(-1).sum() for colour in COLOURS) == 40 * 30 + 60 * 20 + 50 * 25


def test_titles_names_and_legend_stand_around_them() -> None:
    rows = [panels([(120, 30)]), panels([(120, 30)])]
    bare = captioned_grid(rows)
    assert not ink(bare).any()
    titled = captioned_grid(rows, titles=("truth",))
    named = captioned_grid(rows, names=("2007_000032", ""))
    explained = captioned_grid(rows, legend=[("sky", (1, 2, 3)), ("ignored", (255, 255, 255))])
    for other in (titled, named, explained):
        assert other.width == bare.width
        assert other.height > bare.height
        assert ink(other).any()
    assert not ink(titled)[bare.height - 30 :].any()
    assert not ink(named)[: GAP + 30].any()
    assert not ink(explained)[: bare.height - GAP].any()
    pixels = np.asarray(explained)
    assert (pixels == (1, 2, 3)).all(-1).sum() > 50
    edge = (pixels == 128).all(-1)
    assert edge.sum() > 60  # a white square is seen on white, too


@pytest.mark.parametrize(
    "words", [["a title that is longer than its column"], ["onewordthatiswider" * 3], ["a b"] * 30]
)
@pytest.mark.parametrize("where", ["titles", "names", "legend"])
def test_no_text_is_cut_off(where: str, words: list[str]) -> None:
    row = panels([(40, 30)] * (len(words) if where == "titles" else 1))
    rows = [row] * (len(words) if where == "names" else 1)

    def dark(words: list[str]) -> int:
        given = [(word, (1, 2, 250)) for word in words] if where == "legend" else words
        picture = np.asarray(captioned_grid(rows, **{where: given}))
        assert (picture[:, -GAP:] == 255).all()
        return (picture.sum(-1) < 300).sum() - (picture == (1, 2, 250)).all(-1).sum()

    cut, whole = dark([word[:-1] for word in words]), dark(words)
    assert whole > cut  # its last letter is seen


def test_boxes_are_framed_where_they_are() -> None:
    boxes = [((2, 3, 10, 8), COLOURS[0]), ((15.2, 15.2, 15.4, 15.3), COLOURS[1])]  # the second one is below a pixel
    pixels = np.asarray(draw_boxes_(Image.new("RGB", (40, 40)), boxes, 2.0))
    rows, columns = np.nonzero((pixels == COLOURS[0]).all(-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (4, 6, 20, 16)
    assert len(rows) == 2 * 16 + 2 * 8
    assert (pixels == COLOURS[1]).all(-1).any()
