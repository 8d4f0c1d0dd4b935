"""Grids of pictures with titles, captions and a legend, drawn with PIL alone."""

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
LegendEntry = tuple[str, Colour]

GAP = 4  # pixels around every part
_SIZE, _LINE, _SWATCH = 12, 15, 11  # pixels: font size, line height, side of a legend's squares
_BACKGROUND, _TEXT_COLOUR, _OUTLINE = (255, 255, 255), (0, 0, 0), (128, 128, 128)


def captioned_grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    titles: Sequence[str] = (),
    names: Sequence[str] = (),
    legend: Sequence[LegendEntry] = (),
    note: str = "",
) -> Image.Image:
    """Arrange pictures in a grid: titles above the columns, names below the rows, a legend and a note at the bottom.

    Long text is wrapped, and a column is at least as wide as the longest word of its title.

    Args:
        rows: rows of pictures of any size; later rows may be shorter.
        titles: a title for each column, or none.
        names: a name for each row, or none.
        legend: words and the colours that stand for them.
        note: a sentence below everything.

    Example:
        >>> captioned_grid([[Image.new("RGB", (32, 32))] * 3] * 2, titles=("a", "b", "c")).size
        (112, 95)
    """
    widths = [max(picture.width for picture in column) for column in _columns(rows)]
    parts = []
    if titles:
        widths = [max(width, _widest(title)) for width, title in zip(widths, titles, strict=True)]
        parts.append(_hstack([_text(title, width) for title, width in zip(titles, widths, strict=True)], widths))
    texts = [*map(_widest, (*names, note)), *(_legend_entry(one).width for one in legend)]
    across = max([sum(widths) + GAP * (len(widths) - 1), *texts])
    for pictures, name in zip(rows, names or [""] * len(rows), strict=True):
        parts += [_hstack(pictures, widths), _text(name, across, below=GAP)]
    parts += [*_legend(legend, across), _text(note, across)]
    return _vstack([part for part in parts if part.height])


def draw_boxes_(
    picture: Image.Image, boxes: Sequence[tuple[Sequence[float], Colour]], scale: float, *, width: int = 1
) -> Image.Image:
    """Draw boxes (xmin, ymin, xmax, ymax, maxima excluded) in their colours, scaled as the picture was."""
    draw = ImageDraw.Draw(picture)
    for box, colour in boxes:
        xmin, ymin, xmax, ymax = (scale * side for side in box)
        draw.rectangle((xmin, ymin, max(xmax - 1, xmin), max(ymax - 1, ymin)), outline=colour, width=width)
    return picture


def _columns(rows: Sequence[Sequence[Image.Image]]) -> list[list[Image.Image]]:
    return [[row[column] for row in rows if column < len(row)] for column in range(max(map(len, rows)))]


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_SIZE)


def _length(text: str) -> int:
    return round(_font().getlength(text) + 0.5)


def _widest(text: str) -> int:
    return max(map(_length, text.split()), default=0)


def _text(text: str, width: int, *, below: int = 0) -> Image.Image:
    """Draw wrapped text with some pixels below it; without words the height is 0."""
    lines: list[str] = []
    for word in text.split():
        if lines and _length(longer := f"{lines[-1]} {word}") <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    canvas = _canvas(width, _LINE * len(lines) + (below if lines else 0))
    for number, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((0, number * _LINE), line, fill=_TEXT_COLOUR, font=_font())
    return canvas


def _legend_entry(entry: LegendEntry) -> Image.Image:
    """Draw a coloured square and the word that it stands for."""
    word, colour = entry
    canvas = _canvas(_SWATCH + GAP + _length(word) + 2 * GAP, _LINE)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 1, _SWATCH, 1 + _SWATCH), fill=colour, outline=_OUTLINE)
    draw.text((_SWATCH + GAP, 0), word, fill=_TEXT_COLOUR, font=_font())
    return canvas


def _legend(entries: Sequence[LegendEntry], width: int) -> list[Image.Image]:
    """Draw the entries of a legend, wrapped into lines."""
    lines: list[list[Image.Image]] = []
    for entry in map(_legend_entry, entries):
        if not lines or sum(other.width + GAP for other in lines[-1]) + entry.width > width:
            lines.append([])
        lines[-1].append(entry)
    return [_hstack(line, [entry.width for entry in line]) for line in lines]


def _hstack(pictures: Sequence[Image.Image], widths: Sequence[int]) -> Image.Image:
    canvas = _canvas(sum(widths) + GAP * (len(widths) - 1), max((picture.height for picture in pictures), default=0))
    left = 0
    for picture, width in zip(pictures, widths, strict=False):
        canvas.paste(picture, (left, 0))
        left += width + GAP
    return canvas


def _vstack(parts: Sequence[Image.Image]) -> Image.Image:
    canvas = _canvas(
        max(part.width for part in parts) + 2 * GAP, sum(part.height for part in parts) + GAP * (len(parts) + 1)
    )
    top = GAP
    for part in parts:
        canvas.paste(part, (GAP, top))
        top += part.height + GAP
    return canvas


def _canvas(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (max(width, 0), height), _BACKGROUND)
