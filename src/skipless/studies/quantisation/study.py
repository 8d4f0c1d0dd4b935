"""Quantisation study: what few bits cost a model, beside what its activations are like."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from skipless.choices import Documents
from skipless.display import Record, Table
from skipless.display.axes import level, lines_by_name
from skipless.evaluators.quantisation import (
    ActivationStatistics,
    activation_statistics,
    precision,
    quantise_,
    rotate_,
    unquantise_,
)
from skipless.evaluators.quantisation.statistics.activations import SHOWN
from skipless.evaluators.quantisation.statistics.budget import budget_table
from skipless.evaluators.quantisation.statistics.sites import LAST
from skipless.recipes.source import ModelSource
from skipless.studies.config import QuantisationConfig
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import QUANTISATION, trust
from skipless.studies.quantisation.pictures import pictures
from skipless.studies.quantisation.subject import Measured, Metric, Score, measured
from skipless.studies.study_folder import StudyFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FULL = "unquantised"


@dataclass(frozen=True, eq=False, repr=False)
class QuantisationResult(Record):
    """What few bits cost a model, and what its activations are like.

    Attributes:
        model: name of the model.
        data: name of the data.
        config: settings of the study.
        metric: what says how good the model is.
        scores: its value by precision, that of the unquantised model first.
        n: number of images or tokens that the scores are of.
        statistics: of the unquantised model's activations; after the rotation, where there is one.
        folder: with the files of the study; None where none were written.
        probe: top-1 accuracy of a linear probe by precision, in per cent, where the metric is of features; None where
            all heads diverged. Its head is trained anew on the features of each precision, as k-NN's neighbours are.
            Empty for classifiers and language models.
    """

    model: str
    data: str
    config: QuantisationConfig
    metric: Metric
    scores: Mapping[str, float]
    n: int
    statistics: ActivationStatistics = field(repr=False)
    folder: Path | None = None
    probe: Mapping[str, float | None] = field(default_factory=dict)

    def lost(self, name: str) -> tuple[float, float]:
        """What a precision loses, in the metric's unit and in per cent of the unquantised value; below 0 is a gain.

        Args:
            name: of the precision.
        """
        whole, found = self.scores[FULL], self.scores[name]
        lost = whole - found if self.metric.rises else found - whole
        return lost, 100 * lost / whole if whole else float("nan")

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON; what is infinite or no number is null."""
        return _finite(
            {
                "model": self.model,
                "data": self.data,
                "metric": asdict(self.metric),
                "n": self.n,
                "scores": dict(self.scores),
                "lost": {
                    name: dict(zip(("absolute", "percent"), self.lost(name), strict=True)) for name in self.scores
                },
                "probe": dict(self.probe),
                "activations": self.statistics.record(),
            }
        )

    def _summary(self) -> str:
        worst = min(self.scores, key=lambda name: -self.lost(name)[0])
        whole = f"{self.metric.name} {self.scores[FULL]:.4g}"
        return f"{self.model} on {self.data}, {whole}, {worst} {self.scores[worst]:.4g}, n = {self.n:,}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each precision; a row for the stream and each linear input; the budget of each block."""
        chosen = self.statistics.table((*SHOWN, LAST))
        return (self._by_bits(), chosen, budget_table(self.statistics.budget))

    def _by_bits(self) -> Table:
        rows = []
        for name, value in self.scores.items():
            lost, percent = self.lost(name)
            rows.append([name, f"{value:.4g}", *(["–"] * 2 if name == FULL else [f"{lost:.3g}", f"{percent:.3g}"])])
        if self.metric.trivial is not None:
            rows.append([self.metric.trivial[0], f"{self.metric.trivial[1]:.4g}", "–", "–"])
        head = ["precision", f"{self.model}: {self.metric.name}", "lost", "lost, % of unquantised"]
        if self.probe:
            head += ["linear probe, %", "lost"]
            rows = [[*row, *self._of_probe(row[0])] for row in rows]
        about = f"{self.data}, n = {self.n:,}; {in_words(self.config)}"
        return Table(head, rows, about, align="l" + "r" * (len(head) - 1))

    def _of_probe(self, name: str) -> tuple[str, str]:
        """What the probe has at a precision, and what it loses there."""
        if name not in self.probe:
            return "–", "–"
        whole, found = self.probe[FULL], self.probe[name]
        if found is None:
            return "diverged", "–"
        return f"{found:.4g}", "–" if name == FULL or whole is None else f"{whole - found:.3g}"

    def _draw(self, axes: "Axes") -> None:
        lines: dict[str, list[float | None]] = {self.model: list(self.scores.values())}
        if self.probe:
            lines = {"k-NN": list(self.scores.values()), "linear probe": list(self.probe.values())}
        lines_by_name(axes, list(self.scores), lines, "top-1, %" if self.probe else self.metric.name, "precision")
        if self.metric.trivial is not None:
            level(axes, self.metric.trivial[1], self.metric.trivial[0])

    def __str__(self) -> str:
        first, *others = self.tables()
        said = [f"{table.markdown()}\n\n{table.caption}" for table in (first, *others)]
        return "\n\n".join(said)


def in_words(config: QuantisationConfig) -> str:
    """How weights and activations are rounded."""
    ranges = f"static, {config.calibration} inputs" if config.static else "dynamic"
    rotated = "" if config.rotate == "none" else f"; stream rotated ({config.rotate})"
    ends = "embedding and head too" if config.ends else "embedding and head as they are"
    return (
        f"weights {config.weight_grid} per {config.weights_per}, activations {config.activation_grid} per "
        f"{config.activations_per} ({ranges}); {ends}{rotated}"
    )


def quantisation_study(
    source: ModelSource,
    config: QuantisationConfig | None = None,
    *,
    data: str | None = None,
    tokenizer: str | None = None,
    documents: Documents | None = None,
    out: Path,
    origin: Origin = UNSAID,
) -> QuantisationResult:
    """Score a model at few bits, and measure its activations; precisions that are done are read from the folder.

    A run of a classifier is scored by top-1 accuracy, a language model by bits per byte, and every other model by k-NN
    accuracy of its last block's features, with a linear probe on them beside it. The source's model is as before
    afterwards.

    Args:
        source: what `open_model` has opened.
        config: settings of the study.
        data: a data set or folder, or a text; None takes the run's own.
        tokenizer, documents: of another text, as for `held_out_text`.
        out: parent of the study's folder.
        origin: whose weights these are and which command asks for it.

    Raises:
        InputError: if data and model do not go together, or the model cannot be quantised or rotated.
    """
    config = config or QuantisationConfig()
    of = measured(source, config, data=data, tokenizer=tokenizer, documents=documents)
    settings = {**of.identity, "config": asdict(config)}
    folder = StudyFolder(out, f"quantisation-{of.data}", settings, state=origin.state)
    model = copy.deepcopy(of.model)
    if config.rotate != "none":
        rotate_(model, config.rotate, generator=torch.Generator().manual_seed(config.seed))
    scores = _scores(of, model, config, folder)
    result = QuantisationResult(
        source.title,
        of.data,
        config,
        of.metric,
        {name: score.value for name, score in scores.items()},
        scores[FULL].n,
        activation_statistics(model, of.held_out()),
        folder.path,
        {name: score.probe for name, score in scores.items()} if of.probed else {},
    )
    folder.finish(result.record(), str(result))
    shown = {"name": source.title, "data": of.data, "config": config, "notes": trust(QUANTISATION, origin, 0)}
    write_study_page(
        folder, QUANTISATION, result, model=model, origin=origin, drawn=pictures(result.statistics), **shown
    )
    return result


def _scores(of: Measured, model: nn.Module, config: QuantisationConfig, folder: StudyFolder) -> dict[str, Score]:
    """How good the model is by precision; what an earlier call has scored is read."""
    kept = {line["precision"]: Score(line["score"], line["n"], line.get("probe")) for line in folder.read_journal()}
    for name in (FULL, *config.precisions):
        if name in kept:
            continue
        if name != FULL:
            _quantise_(model, name, config, of)
        kept[name] = score = of.score(model)
        if name != FULL:
            unquantise_(model)
        folder.append_journal({"precision": name, "score": score.value, "n": score.n, "probe": score.probe})
    return {name: kept[name] for name in (FULL, *config.precisions)}


def _quantise_(model: nn.Module, name: str, config: QuantisationConfig, of: Measured) -> None:
    weights, activations = precision(name)
    static = config.static and activations is not None
    quantise_(
        model,
        weights,
        activations,
        weights_per=config.weights_per,
        activations_per=config.activations_per,
        symmetric_weights=config.weight_grid == "symmetric",
        symmetric_activations=config.activation_grid == "symmetric",
        calibration=of.training() if static else None,
        ends=config.ends,
    )


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value if not isinstance(value, float) or abs(value) < float("inf") else None
