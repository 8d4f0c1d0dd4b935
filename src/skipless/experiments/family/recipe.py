"""What the room trains: Table 1's models with another attention, other shortcuts, and other lengths."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, get_args

from skipless.choices import OptimizerName, Row
from skipless.errors import InputError
from skipless.experiments.family.scales import AttentionKind, FamilyRow, FamilyScale, Method
from skipless.init.scheme import SkiplessInit
from skipless.models.attention_config import AttentionConfig
from skipless.recipes.recipe import Recipe
from skipless.registry import recipe_named


class FamilyCell(NamedTuple):
    """What stands for the softmax, what for the skips and how the model starts, the optimizer, and the length."""

    attention: AttentionKind
    row: FamilyRow
    optimizer: OptimizerName
    length: int = 1

    @property
    def slug(self) -> str:
        """Its name as part of a path.

        Example:
            >>> FamilyCell("polynomial 2", "skipless + init", "soap", 5).slug
            'polynomial-2-skipless-init-soap-5x'
        """
        words = f"{self.attention} {self.row}".replace(" +", "").replace(",", "").replace(" ", "-").lower()
        return f"{words}-{self.optimizer}" + (f"-{self.length}x" if self.length != 1 else "")


METHODS: Mapping[Method, tuple[AttentionKind, FamilyRow]] = {
    "skip": ("softmax", "skip"),
    "skip, decayed": ("softmax", "skip, decayed"),
    "skipless": ("softmax", "skipless"),
    "skipless + init": ("softmax", "skipless + init"),
    "skipless + ours": ("softmax", "skipless + ours"),
    "V-SkipInit": ("V-SkipInit", "skipless + source"),
    "E-SPA": ("E-SPA", "skipless + source"),
    "U-SPA": ("U-SPA", "skipless + source"),
    "shaped": ("shaped", "skipless + source"),
    "V-SkipInit + ours": ("V-SkipInit", "skipless + ours"),
    "E-SPA + ours": ("E-SPA", "skipless + ours"),
    "U-SPA + ours": ("U-SPA", "skipless + ours"),
    "shaped + ours": ("shaped", "skipless + ours"),
}

# The row of Table 1 whose recipe and peak learning rate a row has before it is changed and tuned.
_LIKE: Mapping[FamilyRow, Row] = {
    "skip": "skip",
    "skip, decayed": "skip",
    "skipless": "skipless",
    "skipless + init": "skipless + init",
    "skipless + ours": "skipless + ours",
    "skipless + source": "skipless + init",
}
_CORE: Mapping[AttentionKind, AttentionConfig] = {
    "softmax": AttentionConfig(),
    "polynomial 1": AttentionConfig("polynomial", power=1),
    "polynomial 2": AttentionConfig("polynomial", power=2),
    "polynomial 3": AttentionConfig("polynomial", power=3),
    "shaped": AttentionConfig("shaped"),
    "V-SkipInit": AttentionConfig("v-skipinit"),
    "E-SPA": AttentionConfig("e-spa"),
    "U-SPA": AttentionConfig("u-spa"),
    "orthogonal": AttentionConfig("orthogonal"),
}
# Near the identity with the paper's scheme, whose noise is large: the source has a small gain, which is not public.
_ORTHOGONAL_ALPHA = 0.1
# As He et al. 2023 and Noci et al. 2023 start: W_V and W_O orthogonal (c = 1), W_Q W_K^T noise alone, and where
# `AttentionConfig` says so W_Q = 0. The MLP is the paper's.
SOURCE = SkiplessInit(alpha=1.0, beta=0.0, c=1.0)
DECAYED = 0.6
"""a_min of decayed shortcuts: at 12 blocks the product of all a_l is 4e-3, within the 1e-3 to 1e-2 of the source."""


def family_recipe(
    scale: FamilyScale, cell: FamilyCell, *, seed: int = 0, data: str | None = None, epochs: int | None = None
) -> Recipe:
    """One run of the room.

    Raises:
        InputError: for an attention or a row that does not exist, a length below one, and where the two do not go
            together.

    Example:
        >>> recipe = family_recipe("digits", FamilyCell("polynomial 2", "skipless + init", "soap", 5))
        >>> recipe.model.attention.title, recipe.fit.epochs
        ('polynomial, power 2, scale solved', 150)
    """
    _check(cell)
    made: Recipe = recipe_named("table1")(scale, _LIKE[cell.row], cell.optimizer, seed=seed, data=data)
    model = replace(made.model, attention=attention_of(cell), init=_init(cell, made.model.init))
    if cell.row == "skip, decayed":
        model = replace(model, skip_gain=DECAYED)
    return made.with_(model=model, fit__epochs=cell.length * (made.fit.epochs if epochs is None else epochs))


def attention_of(cell: FamilyCell) -> AttentionConfig:
    """The cell's attention. A scale of polynomials is solved where the logits are those of an initialisation.

    With the library's own W_Q and W_K no scale makes the mean A_ii of an odd power 1, as half of the A_ii are negative:
    such models have the paper's 1 / sqrt(n).
    """
    core = _CORE[cell.attention]
    if core.core == "polynomial" and cell.row in ("skipless + init", "skipless + ours"):
        return replace(core, scale="solved")
    if core.core == "orthogonal" and cell.row == "skipless + init":
        return replace(core, alpha=_ORTHOGONAL_ALPHA)
    return core


def _init(cell: FamilyCell, given: SkiplessInit | None) -> SkiplessInit | None:
    """How the model starts. Our scheme solves the softmax's diagonal, so that beside another core it is left out."""
    if cell.row == "skipless + source":
        return SOURCE
    if cell.row == "skipless + ours" and given is not None and cell.attention != "softmax":
        return replace(given, attention_diagonal=None, last_diagonal=None)
    return given


def _check(cell: FamilyCell) -> None:
    if cell.attention not in get_args(AttentionKind):
        raise InputError(f"no attention {cell.attention!r}; there is {', '.join(get_args(AttentionKind))}")
    if cell.row not in get_args(FamilyRow):
        raise InputError(f"no row {cell.row!r}; there is {', '.join(get_args(FamilyRow))}")
    if cell.length < 1:
        raise InputError(f"--lengths {cell.length}: give 1 or more of the scale's length")
    if cell.row == "skipless + source" and cell.attention in (
        "softmax",
        *(f"polynomial {power}" for power in (1, 2, 3)),
    ):
        raise InputError(f"{cell.attention} attention has no source that does without skips: give another row")
