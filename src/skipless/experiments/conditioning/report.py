"""Tables 5 and 6, ours beside the paper's, from the lines that `--measure-every` leaves in run folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipless.conditioning.measurement.conditioning_report import TOKENS_AT_TEXT
from skipless.experiments.conditioning.paper import PAPER_EPOCHS, PAPER_TABLE5, PAPER_TABLE6
from skipless.report.condition_number import ConditionNumber, number
from skipless.report.run_records import read_lines, read_record


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
    def layers(self) -> tuple[ConditionNumber, ...]:
        """kappa of Table 6 at every measured block."""
        return tuple(table6_number(block) for block in self.measurement["blocks"])


def table6_number(block: Mapping[str, Any]) -> ConditionNumber:
    """kappa((K + I)(K + I)^T) of a block whose attention has its skip, kappa(K K^T) of one without."""
    found = block["attn"]["skip" if "attn" in block["skips"] else "skipless"]
    return number(found["kappa_gram"], found["rank"], found["size"])


def table5_number(measurement: Mapping[str, Any], rows: str) -> ConditionNumber:
    """kappa(J J^T) at one choice of rows."""
    found = measurement["networks"][rows]["spectrum"]
    return number(found["kappa_gram"], found["rank"], min(found["shape"]))


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
    kind = _counted(next(iter(found.values()))[0].measurement)
    heads = [f"ours: {_rows(rows, kind)}" for rows in choices.values()]
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


def _rows(rows: Mapping[str, Any], kind: str) -> str:
    tokens = len(rows["tokens"])
    return (
        f"{rows['rows']} rows ({rows['images']} {kind}, {'class token' if tokens == 1 else f'{tokens} tokens'}, "
        f"{len(rows['outputs'])} features)"
    )


def _counted(measurement: Mapping[str, Any]) -> str:
    """What a measurement is at, in the plural."""
    return f"{measurement.get('kind', 'image')}s"


def _share(share: float) -> str:
    return "0 (init)" if share == 0 else f"{share:.2f}"


def _paper5(value: float | None) -> str:
    return "∞" if value is None else "–" if value == 0 else f"{value:g}"


def _paper6(row: str, epoch: int) -> str:
    if not epoch or row not in PAPER_TABLE6:
        return "–"
    values = PAPER_TABLE6[row][epoch]
    return "∞, ∞, ∞, ∞" if values is None else ", ".join(f"{value:g}" for value in values)


def _cells(numbers: Sequence[ConditionNumber]) -> str:
    return " | ".join(map(str, numbers))


def _about(setting: str, found: Mapping[str, Sequence[Moment]]) -> str:
    measured = next(iter(found.values()))[0].measurement
    readings = {moments[0].measurement.get("at", "normed") for moments in found.values()}
    tokens = (
        TOKENS_AT_TEXT[readings.pop()]
        if len(readings) == 1
        else "tokens after the norm, or N(0, I) where the row says so"
    )
    kind = _counted(measured)
    several = f"the median of {measured['images']} {kind}" if measured["images"] > 1 else f"one {kind[:-1]}"
    return (
        f"Ours: {setting}; one model a row; {several}; {measured['dtype']}; {tokens}. “≥” is the most "
        "that the precision proves, and a rank says how singular the matrix is. The paper's: DINO, ViT-S, 300 epochs, "
        "one model a row, ∞ as printed there; its choice of images and of rows of J is not stated."
    )


def figure6_markdown(columns: Mapping[str, list[dict[str, Any]]]) -> str:
    """Write what Figure 6 shows as numbers."""
    lines = [
        "| model | block | mean | std | excess kurtosis | isotropy | isotropy if Gaussian | covariance |",
        "|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for name, blocks in columns.items():
        for block in blocks:
            found = block["tokens"][0]
            rank = f"rank {found['covariance']['rank']} of {found['dim']}"
            numbers = " | ".join(f"{found[key]:.2f}" for key in _MOMENTS)
            lines.append(f"| {name} | {block['index']} | {numbers} | {rank} |")
    return "\n".join([*lines, "", _FIGURE6, ""])


_MOMENTS = ("mean", "std", "excess_kurtosis", "isotropy", "gaussian_isotropy")
_FIGURE6 = (
    "Entries of the tokens after the norm before the attention. Isotropy is tr(C)^2 / (d tr(C^2)), the share of "
    "directions that the tokens use; beside it what as many N(0, I) tokens give. The paper shows histograms "
    "of the entries, and concludes from them that tokens are nearly N(0, I); isotropy is what they cannot show."
)
