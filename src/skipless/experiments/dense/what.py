"""The tables and figures of this room: their names, their titles, and what is evaluated for each."""

from typing import Literal, get_args

DenseWhat = Literal["table2", "table3", "table4", "figure2", "figure3", "figure4", "figure7", "figure8", "figure9"]
DENSE: tuple[DenseWhat, ...] = get_args(DenseWhat)
PICTURES: tuple[DenseWhat, ...] = ("figure4", "figure7", "figure8")
BY_DEPTH: tuple[DenseWhat, ...] = ("table3", "table4")

TITLES: dict[DenseWhat, str] = {
    "table2": "Table 2: dense linear probing",
    "table3": "Table 3: dense linear probing by depth",
    "table4": "Table 4: object discovery by depth",
    "figure2": "Figure 2: dense linear probing through pretraining",
    "figure3": "Figure 3: object discovery",
    "figure4": "Figure 4: features as colours, without cherry-picking",
    "figure7": "Figure 7: more features as colours, without cherry-picking",
    "figure8": "Figure 8: features of every block as colours",
    "figure9": "Figure 9: DINO's training loss",
}


def kind_of(what: DenseWhat) -> Literal["masks", "boxes", "pictures", ""]:
    """What is evaluated for a table or figure: nothing for the training loss."""
    if what in ("table2", "table3", "figure2"):
        return "masks"
    if what in ("table4", "figure3"):
        return "boxes"
    return "pictures" if what in PICTURES else ""
