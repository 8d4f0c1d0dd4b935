"""What a finished study of `skipless eval` found, read from its `result.json`, in a line."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipless.display.values import counted


@dataclass(frozen=True)
class FoundStudy:
    """A study in a line.

    Attributes:
        study: its name.
        data: name of the data set; empty where the file does not say it.
        model: name of the model.
        best: the highest score in words; empty where there is none.
    """

    study: str
    data: str
    model: str
    best: str

    def __str__(self) -> str:
        where = f" on {self.data}" if self.data else ""
        return f"{self.study}{where}, {self.model}{f': {self.best}' if self.best else ''}"


def found_study(folder: Path) -> FoundStudy | str:
    """Read a folder's `result.json`, or say why it is none of a study."""
    try:
        values = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except OSError as error:
        return f"result.json cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return "result.json is not JSON that can be read"
    if not isinstance(values, Mapping) or "settings" not in values:
        return "its result.json is of no study of skipless eval"
    try:
        return _study(values)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError):
        return "its result.json is of a study that this version does not know"


def _study(values: Mapping[str, Any]) -> FoundStudy:
    if "pictures" in values:
        models = dict.fromkeys(name for columns in values["pictures"].values() for name in columns)
        return FoundStudy("pca", counted(len(values["images"]), "image"), ", ".join(_models(values) or models), "")
    if "compared" in values["settings"]:
        return _side_by_side(values)
    data, model = str(values["data"]), str(values["model"])
    if "accuracy" in values:
        top1 = values["accuracy"]["top1"]
        return FoundStudy("top1", data, model, f"top-1 {top1:.1f}")
    if "corloc" in values:
        best = values["corloc"][values["best"]]["percent"]
        return FoundStudy(values["config"]["method"], data, model, f"CorLoc {best:.1f} ({values['best']})")
    if "knn" in values:
        top1 = max(score["top1"] for by_k in values["knn"].values() for score in by_k.values())
        return FoundStudy("knn", data, model, f"top-1 {top1:.1f}")
    dense = isinstance(values["majority"], Mapping)
    study, score, name = ("linear-probe", "mIoU", "miou") if dense else ("linear-classifier", "top-1", "top1")
    return FoundStudy(study, data, model, f"{score} {_highest(values, name):.1f}")


def _side_by_side(values: Mapping[str, Any]) -> FoundStudy:
    models = " beside ".join(str(one["model"]) for one in values["models"])
    bests = ", ".join("–" if one["best"] is None else f"{one['best']:.1f}" for one in values["models"])
    return FoundStudy(str(values["study"]), str(values["data"]), models, f"{values['score']} {bests}")


def _models(values: Mapping[str, Any]) -> list[str]:
    models = values["settings"].get("models", {})
    return list(models) if isinstance(models, Mapping) else []


def _highest(values: Mapping[str, Any], name: str) -> float:
    blocks = [score if name in score else score["scores"] or {} for score in values["probe"]["blocks"]]
    return max((score[name] for score in blocks if score.get(name) is not None), default=math.nan)
