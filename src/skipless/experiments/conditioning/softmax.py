"""Figure 5: the condition number of softmax(alpha Z + beta I), peaked and diffuse, over many draws."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from skipless.conditioning.spectra.dense import matrix_spectrum
from skipless.errors import InputError
from skipless.experiments.conditioning.page import write_conditioning
from skipless.report.condition_number import short
from skipless.report.write_files import drawing

SIZE = 10
ALPHA = 0.1
BETA = {"peaked": 5.0, "diffuse": 0.0}
PAPER = {"peaked": 1.1, "diffuse": 730.1}  # single draws


def reproduce_figure5(out: Path, *, draws: int = 200, seed: int = 0, command: str = "") -> dict[str, Path]:
    """Figure 5: kappa of a 10 x 10 softmax, where the paper has one draw of each kind, by its quartiles over many.

    The paper does not say how Z is distributed here. With N(0, 1) its two numbers are ordinary draws; with
    the N(0, 1/d) of Eq. 11 the diffuse kappa is sqrt(10) times larger.

    Args:
        out: folder of the report.
        draws: of each kind.
        seed: of the draws.
        command: what the page names as its origin.

    Raises:
        InputError: for fewer than two draws.
    """
    if draws < 2:
        raise InputError(f"draws={draws}: give at least 2")
    figures = drawing("skipless.experiments.conditioning.figures")
    maps, lines, values = {}, [], {}
    for name, beta in BETA.items():
        matrices = softmax_draws(draws, beta, seed)
        kappas = [found.kappa.value for found in matrix_spectrum(matrices, name=name)]
        quartiles = np.quantile(kappas, (0.25, 0.5, 0.75))
        below = float(np.mean(np.array(kappas) < PAPER[name]))
        maps[name] = (matrices[0].numpy(), kappas, PAPER[name])
        values[name] = {"alpha": ALPHA, "beta": beta, "seed": seed, "paper": PAPER[name], "kappa": kappas}
        numbers = " | ".join(short(float(q)) for q in quartiles)
        lines.append(f"| {name} | {ALPHA:g} | {beta:g} | {PAPER[name]:g} | {numbers} | {draws} | {100 * below:.0f} % |")
    table = "\n".join([_HEAD, *lines, "", _CAPTION, ""])
    picture = figures.softmax_figure(maps, f"Figure 5: softmax(0.1 Z + beta I), {SIZE} x {SIZE}, {draws} draws")
    files = {"figure5.md": table, "figure5.json": values, "figure5.png": picture}
    setting = f"softmax(alpha Z + beta I), {SIZE} x {SIZE}, {draws} draws of each kind"
    return write_conditioning(out, "figure5", files, scale="", setting=setting, seed=seed, command=command)


def softmax_draws(draws: int, beta: float, seed: int) -> Float[Tensor, "draws 10 10"]:
    """Row-wise softmax of alpha Z + beta I, Z ~ N(0, 1), in float64."""
    z = torch.randn(draws, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return (ALPHA * z + beta * torch.eye(SIZE, dtype=torch.double)).softmax(-1)


_HEAD = (
    "| logits | alpha | beta | paper (one draw) | ours: lower quartile | median | upper quartile | draws | "
    "below the paper's |\n|:--|--:|--:|--:|--:|--:|--:|--:|--:|"
)
_CAPTION = "kappa of softmax(alpha Z + beta I), Z ~ N(0, 1), 10 x 10, float64."
