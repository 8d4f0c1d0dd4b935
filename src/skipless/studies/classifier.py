"""Linear classification study: trained linear heads on the frozen features of every block."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from skipless.data.images import ImageData
from skipless.display import Record, Table
from skipless.display.axes import legend, level, lines_by_name
from skipless.evaluators.classification.linear_classification import (
    ClassificationProtocol,
    ClassificationResult,
    linear_classification_probe,
)
from skipless.studies.config import ClassifierConfig
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import CLASSIFIER, trust
from skipless.studies.pooled import PooledData, pool
from skipless.studies.study_folder import StudyFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierResult(Record):
    """Accuracy of the best linear head on each block.

    Attributes:
        model: name of the model.
        data: name of the data set.
        config: settings of the study.
        probe: scores of all heads.
        pooled: the feature vectors.
        folder: with the files of the study; None where none were written.
    """

    model: str
    data: str
    config: ClassifierConfig
    probe: ClassificationResult
    pooled: PooledData
    folder: Path | None = None

    @property
    def best(self) -> tuple[int, float]:
        """The block with the highest top-1 accuracy, chosen on the scored images themselves, and that accuracy."""
        return max(((score.block, score.top1 or 0.0) for score in self.probe.blocks), key=lambda found: found[1])

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "config": asdict(self.config),
            "pooling": self.pooled.pooling,
            "probe": self.probe.record(),
            "majority": self.pooled.majority,
            "unreadable": self.pooled.unreadable,
        }

    def _summary(self) -> str:
        block, top1 = self.best
        return f"{self.model} on {self.data}, best top-1 {top1:.1f} % (block {block}), n = {self.probe.test}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each block; accuracies in per cent."""
        rows = [
            [f"block {s.block}", "diverged" if s.top1 is None else f"{s.top1:.1f}", f"{s.learning_rate or 0:g}"]
            for s in self.probe.blocks
        ]
        *notes, about = self._notes()
        head = (f"linear top-1, {self.model}", "top-1", "learning rate")
        return (Table(head, rows, f"{about}; per cent", [*notes, *self.pooled.remark()], align="lrr"),)

    def _draw(self, axes: "Axes") -> None:
        names = [str(score.block) for score in self.probe.blocks]
        lines_by_name(axes, names, {"linear": [score.top1 for score in self.probe.blocks]}, "top-1, %")
        level(axes, self.pooled.majority, "largest class")
        legend(axes)

    def __str__(self) -> str:
        (table,) = self.tables()
        return "\n".join([table.markdown(), "", *self._notes(), *self.pooled.remark()])

    def _notes(self) -> list[str]:
        """What stands below the table: the best of it, what it is compared with, and last what it is of."""
        block, top1 = self.best
        chosen = "validation" if self.probe.select == "val" else "held-out training"
        return [
            f"best (block {block}, chosen on these images): {top1:.1f}",
            f"largest class: {self.pooled.majority:.1f}",
            f"{self.data}, {self.probe.train} training images, n = {self.probe.test}, {self.pooled.pooling} token, "
            f"learning rates chosen on {self.probe.chosen_on} {chosen} images",
        ]


def classify(
    model: nn.Module,
    data: ImageData,
    config: ClassifierConfig | None = None,
    *,
    out: Path,
    name: str = "model",
    data_name: str = "data",
    progress: bool = True,
    origin: Origin = UNSAID,
) -> ClassifierResult:
    """Train linear classifiers on every block's features and score them; arguments as in `nearest_neighbours`.

    Raises:
        InputError: if no image of a split can be read, or a setting does not fit the model.
    """
    config = config or ClassifierConfig()
    x = pool(model, data, config.pool, out=out, data_name=data_name, progress=progress, origin=origin)
    protocol = ClassificationProtocol()
    protocol = protocol if config.epochs is None else replace(protocol, epochs=config.epochs)
    probe = linear_classification_probe(
        x.train,
        x.train_labels,
        x.val,
        x.val_labels,
        classes=x.classes,
        protocol=protocol,
        select=config.select,
        seed=config.seed,
        device=next(model.parameters()).device,
    )
    folder = StudyFolder(
        out,
        f"linear-classifier-{data_name}",
        {"vectors": x.identity, "config": asdict(config)},
        state=origin.state,
        before=f"linear-{data_name}",
    )
    result = ClassifierResult(name, data_name, config, probe, x, folder.path)
    folder.finish(result.record(), str(result))
    notes = trust(CLASSIFIER, origin, len(x.unreadable), config.select)
    shown = {"name": name, "data": data_name, "config": config}
    write_study_page(folder, CLASSIFIER, result, model=model, notes=notes, origin=origin, **shown)
    return result
