"""Draw `dino-knn.png` from the table in LOG.md: `python docs/images/dino_knn.py`, in the repository's root."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from skipless.report.pictures.figure_style import ROW_COLOUR, print_fonts, style_axes

ROWS = ("skip", "skipless", "skipless + init")
SECTION = "DINO learns on scenes, and most without skips"


def accuracies(log: str) -> dict[str, list[float]]:
    """For each row, k-NN top-1 after epochs 1 to 8, in per cent."""
    section = log[log.index(SECTION) :]
    lines = {row: re.search(rf"^\| {re.escape(row)} \|(.*)", section, re.M) for row in ROWS}
    return {row: [float(cell.strip(" *")) for cell in line[1].split("|")[:8]] for row, line in lines.items() if line}


def draw(found: dict[str, list[float]]) -> Figure:
    """One line a row, its name at its end."""
    with style_axes(print_fonts()):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for row, values in found.items():
            colour = ROW_COLOUR[row]
            axes.plot(range(1, 9), values, color=colour, linewidth=2, marker="o", markersize=4, clip_on=False)
            axes.annotate(f"{row}  {values[-1]:g} %", (8, values[-1]), (8, 0), textcoords="offset points",
                          color=colour, va="center", weight="bold", annotation_clip=False)  # fmt: skip
        axes.axhline(10, color="#68707a", linewidth=0.8, linestyle=":")
        axes.annotate("chance", (1, 10), (0, 3), textcoords="offset points", color="#68707a", size=9)
        axes.set(xlim=(1, 8), ylim=(0, 100), xticks=range(1, 9), xlabel="epoch of DINO", yticks=range(0, 101, 20))
        axes.set_title("k-NN top-1 of the features, %", loc="left", size=11)
        axes.grid(axis="y", color="#dfe2e6", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    picture = draw(accuracies((root / "LOG.md").read_text(encoding="utf-8")))
    with style_axes(print_fonts()):
        picture.savefig(root / "docs/images/dino-knn.png", dpi=180, metadata={"Software": None})
