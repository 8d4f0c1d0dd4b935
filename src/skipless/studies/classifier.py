"""Linear classification study: trained linear heads on the frozen features of every block."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from skipless.data.images import ImageData
from skipless.evaluators.classification.linear_classification import (
    ClassificationProtocol,
    ClassificationResult,
    linear_classification_probe,
)
from skipless.studies.config import ClassifierConfig
from skipless.studies.formatting import markdown_table
from skipless.studies.pooled import PooledData, pool
from skipless.studies.study_folder import StudyFolder


@dataclass(frozen=True, eq=False)
class ClassifierResult:
    """Accuracy of the best linear head on each block.

    Attributes:
        model: name of the model.
        data: name of the data set.
        config: settings of the study.
        probe: scores of all heads.
        pooled: the feature vectors.
    """

    model: str
    data: str
    config: ClassifierConfig
    probe: ClassificationResult
    pooled: PooledData

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

    def __str__(self) -> str:
        rows = [
            [f"block {s.block}", "diverged" if s.top1 is None else f"{s.top1:.1f}", f"{s.learning_rate or 0:g}"]
            for s in self.probe.blocks
        ]
        block, top1 = self.best
        chosen = "validation" if self.probe.select == "val" else "held-out training"
        lines = [
            markdown_table([f"linear top-1, {self.model}", "top-1", "learning rate"], rows),
            "",
            f"best (block {block}, chosen on these images): {top1:.1f}",
            f"largest class: {self.pooled.majority:.1f}",
            f"{self.data}, {self.probe.train} training images, n = {self.probe.test}, {self.pooled.pooling} token, "
            f"learning rates chosen on {self.probe.chosen_on} {chosen} images",
            *self.pooled.remark(),
        ]
        return "\n".join(lines)


def classify(
    model: nn.Module,
    data: ImageData,
    config: ClassifierConfig | None = None,
    *,
    out: Path,
    name: str = "model",
    data_name: str = "data",
    progress: bool = True,
) -> ClassifierResult:
    """Train linear classifiers on every block's features and score them; arguments as in `nearest_neighbours`.

    Raises:
        InputError: if no image of a split can be read, or a setting does not fit the model.
    """
    config = config or ClassifierConfig()
    x = pool(model, data, config.pool, out=out, data_name=data_name, progress=progress)
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
    result = ClassifierResult(name, data_name, config, probe, x)
    folder = StudyFolder(out, f"linear-{data_name}", {"vectors": x.identity, "config": asdict(config)})
    folder.finish(result.record(), str(result))
    return result
