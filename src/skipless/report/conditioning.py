"""Tables 5 and 6, ours beside the paper's, from the lines that `--measure-every` leaves in run folders."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipless.conditioning.measured import TOKENS_AT
from skipless.report.records import read_lines, read_record

LAYERS = (0, 4, 7, 11)
ROWS = ("skip", "skipless", "skipless + init")

# A.7: DINO, ViT-Small, 300 epochs; None is the paper's infinity. One model a row, no spread stated.
PAPER_TABLE5: Mapping[str, Mapping[int, float | None]] = {
    "skip": {20: 127, 60: 72, 120: 82, 180: 93, 240: 113, 300: 144},
    "skipless": dict.fromkeys((20, 60, 120, 180, 240, 300)),
    "skipless + init": {20: 195, 60: 340, 120: 261, 180: 160, 240: 176, 300: 207},
}
PAPER_TABLE6: Mapping[str, Mapping[int, tuple[float, ...] | None]] = {
    "skip": {
        20: (1.05, 1.49, 1.35, 1.04),
        100: (1.06, 1.54, 1.25, 1.25),
        200: (1.03, 1.57, 1.21, 1.37),
        300: (1.02, 1.38, 1.28, 1.51),
    },
    "skipless": dict.fromkeys((20, 100, 200, 300)),
    "skipless + init": {
        20: (10, 2.7, 7.5, 12.5),
        100: (6.25, 3.7, 8.54, 19.2),
        200: (6.25, 3.84, 11.1, 21.7),
        300: (3.44, 3.57, 14.3, 20.2),
    },
}
PAPER_EPOCHS = 300


@dataclass(frozen=True)
class Moment:
    """One measurement of a model.

    Attributes:
        share: how much of its training is done, 0 to 1.
        measurement: what was measured, as JSON.
    """

    share: float
    measurement: Mapping[str, Any]

    @property
    def layers(self) -> tuple["Number", ...]:
        """kappa of Table 6 at every measured block."""
        return tuple(table6_number(block) for block in self.measurement["blocks"])


@dataclass(frozen=True)
class Number:
    """A condition number as a table shows it.

    Attributes:
        value: the number, or the most that is proved.
        bound: whether it is only known to be at least that.
        rank, size: the numerical rank, if known, and what full rank would be.
    """

    value: float
    bound: bool
    rank: int | None = None
    size: int | None = None

    def __str__(self) -> str:
        text = f"{'≥ ' if self.bound else ''}{short(self.value)}"
        singular = self.bound and self.rank is not None and self.size is not None and self.rank < self.size
        return f"{text} (rank {self.rank} of {self.size})" if singular else text


def number(estimate: Mapping[str, Any], rank: int | None = None, size: int | None = None) -> Number:
    """What a table shows of an estimate: its value where that is known to a tenth, else its lower bound.

    Example:
        >>> str(number({"value": 3e9, "lower": 3e9, "error": None}, rank=7, size=9))
        '≥ 3e9 (rank 7 of 9)'
    """
    known = estimate["error"] is not None and estimate["error"] <= 0.21  # of a square: twice the tenth of kappa itself
    return Number(estimate["value"] if known else estimate["lower"], not known, rank, size)


def table6_number(block: Mapping[str, Any]) -> Number:
    """kappa((K + I)(K + I)^T) of a block whose attention has its skip, kappa(K K^T) of one without."""
    found = block["attn"]["skip" if "attn" in block["skips"] else "skipless"]
    return number(found["kappa_gram"], found["rank"], found["size"])


def table5_number(measurement: Mapping[str, Any], rows: str) -> Number:
    """kappa(J J^T) at one choice of rows."""
    found = measurement["networks"][rows]["spectrum"]
    return number(found["kappa_gram"], found["rank"], min(found["shape"]))


def short(value: float) -> str:
    """Three digits, large numbers by their power of ten.

    Example:
        >>> short(1.0812), short(340.0), short(999.7), short(123456.0)
        ('1.08', '340', '1000', '1.2e5')
    """
    if not math.isfinite(value):
        return str(value)
    if value < 9999.5:
        return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def read_moments(folder: Path) -> tuple[Moment, ...]:
    """The measurements of a run, in the order of its steps.

    Raises:
        InputError: if the run was not measured, or is not finished.
    """
    steps = int(read_record(folder / "run.json")["steps"])
    lines = read_lines(folder / "measurements.jsonl")
    return tuple(Moment(line["step"] / steps, line["measurement"]) for line in lines)


def nearest(moments: Sequence[Moment], share: float) -> Moment:
    """The measurement that is nearest to a share of the training."""
    return min(moments, key=lambda moment: abs(moment.share - share))


def table6_markdown(found: Mapping[str, Sequence[Moment]], setting: str) -> str:
    """Write Table 6: at each of the paper's shares of the training, and at initialisation, the paper's row and ours."""
    blocks = next(iter(found.values()))[0].measurement["blocks"]
    names = [f"L{block['index']}" for block in blocks]
    lines = [
        f"| training done | model | paper: L0, L4, L7, L11 | {' | '.join(f'ours: {name}' for name in names)} |",
        "|--:|:--|:--|" + "--:|" * len(names),
    ]
    for epoch in (0, *PAPER_TABLE6["skip"]):
        for row, moments in found.items():
            if epoch and len(moments) == 1:
                continue
            ours = nearest(moments, epoch / PAPER_EPOCHS)
            lines.append(f"| {_share(ours.share)} | {row} | {_paper6(row, epoch)} | {_cells(ours.layers)} |")
    return "\n".join([*lines, "", _about(setting, found), ""])


def table5_markdown(found: Mapping[str, Sequence[Moment]], setting: str) -> str:
    """Write Table 5: kappa(J J^T) at two choices of rows of J beside the paper's, whose choice is not stated."""
    first = next(iter(found.values()))[0].measurement["networks"]
    choices = {name: network["rows"] for name, network in first.items()}
    heads = [f"ours: {_rows(rows)}" for rows in choices.values()]
    lines = [f"| training done | model | paper | {' | '.join(heads)} |", "|--:|:--|--:|" + "--:|" * len(heads)]
    for epoch in (0, *PAPER_TABLE5["skip"]):
        for row, moments in found.items():
            if epoch and len(moments) == 1:
                continue
            ours = nearest(moments, epoch / PAPER_EPOCHS)
            paper = PAPER_TABLE5.get(row, {}).get(epoch, 0) if epoch else 0
            cells = _cells([table5_number(ours.measurement, name) for name in choices])
            lines.append(f"| {_share(ours.share)} | {row} | {_paper5(paper)} | {cells} |")
    return "\n".join([*lines, "", _about(setting, found), ""])


def _rows(rows: Mapping[str, Any]) -> str:
    tokens = len(rows["tokens"])
    return (
        f"{rows['rows']} rows ({rows['images']} images, {'class token' if tokens == 1 else f'{tokens} tokens'}, "
        f"{len(rows['outputs'])} features)"
    )


def _share(share: float) -> str:
    return "0 (init)" if share == 0 else f"{share:.2f}"


def _paper5(value: float | None) -> str:
    return "∞" if value is None else "–" if value == 0 else f"{value:g}"


def _paper6(row: str, epoch: int) -> str:
    if not epoch or row not in PAPER_TABLE6:
        return "–"
    values = PAPER_TABLE6[row][epoch]
    return "∞, ∞, ∞, ∞" if values is None else ", ".join(f"{value:g}" for value in values)


def _cells(numbers: Sequence[Number]) -> str:
    return " | ".join(map(str, numbers))


def _about(setting: str, found: Mapping[str, Sequence[Moment]]) -> str:
    measured = next(iter(found.values()))[0].measurement
    readings = {moments[0].measurement.get("at", "normed") for moments in found.values()}
    tokens = (
        TOKENS_AT[readings.pop()] if len(readings) == 1 else "tokens after the norm, or N(0, I) where the row says so"
    )
    several = f"the median of {measured['images']} images" if measured["images"] > 1 else "one image"
    return (
        f"Ours: {setting}; one model a row; {several}; {measured['dtype']}; {tokens}. “≥” is the most "
        "that the precision proves, and a rank says how singular the matrix is. The paper's: DINO, ViT-S, 300 epochs, "
        "one model a row, ∞ as printed there; its choice of images and of rows of J is not stated."
    )
