"""k-NN classification study: DINO's k-NN evaluation on the frozen features of every block."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from skipless.data.images import ImageData
from skipless.evaluators.classification.nearest_neighbours import KnnAccuracy, knn_blocks
from skipless.studies.config import NeighbourConfig
from skipless.studies.formatting import markdown_table
from skipless.studies.pooled import PooledData, pool
from skipless.studies.study_folder import StudyFolder


@dataclass(frozen=True, eq=False)
class NeighbourResult:
    """k-NN accuracy of every block.

    Attributes:
        model: name of the model.
        data: name of the data set.
        config: settings of the study.
        scores: accuracy by block, then by k.
        pooled: the feature vectors.
    """

    model: str
    data: str
    config: NeighbourConfig
    scores: Mapping[int, Mapping[int, KnnAccuracy]]
    pooled: PooledData

    @property
    def best(self) -> tuple[int, int]:
        """Block and k of the highest top-1 accuracy, chosen on the images that it is scored on."""
        places = [(block, k) for block, by_k in self.scores.items() for k in by_k]
        return max(places, key=lambda at: self.scores[at[0]][at[1]].top1)

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "config": asdict(self.config),
            "pooling": self.pooled.pooling,
            "knn": {f"block {b}": {f"k {k}": asdict(s) for k, s in by_k.items()} for b, by_k in self.scores.items()},
            "majority": self.pooled.majority,
            "unreadable": self.pooled.unreadable,
        }

    def __str__(self) -> str:
        head = [f"k-NN top-1, {self.model}", *(f"k = {k}" for k in self.config.ks)]
        rows = [[f"block {b}", *(f"{s.top1:.1f}" for s in by_k.values())] for b, by_k in self.scores.items()]
        block, k = self.best
        last = max(self.scores)
        first = self.scores[last][self.config.ks[0]]
        lines = [
            markdown_table(head, rows),
            "",
            f"best (block {block}, k = {k}, chosen on these images): {self.scores[block][k].top1:.1f}",
            f"block {last}, k = {first.k}: {first.top1:.1f}",
            f"largest class: {self.pooled.majority:.1f}",
            f"{self.data}, {first.n_train} training images, n = {first.n}, {self.pooled.pooling} token, "
            f"T = {first.temperature}",
            *self.pooled.remark(),
        ]
        return "\n".join(lines)


def nearest_neighbours(
    model: nn.Module,
    data: ImageData,
    config: NeighbourConfig | None = None,
    *,
    out: Path,
    name: str = "model",
    data_name: str = "data",
    progress: bool = True,
) -> NeighbourResult:
    """Classify the validation images by their nearest training images. Features are stored and reused.

    Args:
        model: any plain ViT of timm's, on the device where it shall run.
        data: images without augmentation.
        config: settings of the study.
        out: parent of the study's folder.
        name: name of the model in tables.
        data_name: name of the data set in tables.
        progress: whether to show a progress bar.

    Raises:
        InputError: if no image of a split can be read, or there are fewer than k.
    """
    config = config or NeighbourConfig()
    x = pool(model, data, config.pool, out=out, data_name=data_name, progress=progress)
    scores = knn_blocks(
        x.train, x.train_labels, x.val, x.val_labels, ks=config.ks, temperature=config.temperature,
        device=next(model.parameters()).device,
    )  # fmt: skip
    result = NeighbourResult(name, data_name, config, scores, x)
    folder = StudyFolder(out, f"knn-{data_name}", {"vectors": x.identity, "config": asdict(config)})
    folder.finish(result.record(), str(result))
    return result
