"""k-NN classification study: DINO's k-NN evaluation on the frozen features of every block."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from skipless.data.images import ImageData
from skipless.display import Record, Table
from skipless.display.axes import legend, level, lines_by_name
from skipless.evaluators.classification.nearest_neighbours import KnnAccuracy, knn_blocks
from skipless.studies.config import NeighbourConfig
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import NEIGHBOURS, trust
from skipless.studies.pooled import PooledData, pool
from skipless.studies.study_folder import StudyFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class NeighbourResult(Record):
    """k-NN accuracy of every block.

    Attributes:
        model: name of the model.
        data: name of the data set.
        config: settings of the study.
        scores: accuracy by block, then by k.
        pooled: the feature vectors.
        folder: with the files of the study; None where none were written.
    """

    model: str
    data: str
    config: NeighbourConfig
    scores: Mapping[int, Mapping[int, KnnAccuracy]]
    pooled: PooledData
    folder: Path | None = None

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

    def _summary(self) -> str:
        block, k = self.best
        score = self.scores[block][k]
        return f"{self.model} on {self.data}, best top-1 {score.top1:.1f} % (block {block}, k = {k}), n = {score.n}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each block, a column for each k; accuracies in per cent."""
        head = [f"k-NN top-1, {self.model}", *(f"k = {k}" for k in self.config.ks)]
        rows = [[f"block {b}", *(f"{s.top1:.1f}" for s in by_k.values())] for b, by_k in self.scores.items()]
        *notes, about = self._notes()
        return (
            Table(
                head, rows, f"{about}; per cent", [*notes, *self.pooled.remark()], align=f"l{'r' * len(rows[0][1:])}"
            ),
        )

    def _draw(self, axes: "Axes") -> None:
        series = {f"k = {k}": [by_k[k].top1 for by_k in self.scores.values()] for k in self.config.ks}
        lines_by_name(axes, [str(block) for block in self.scores], series, "top-1, %")
        level(axes, self.pooled.majority, "largest class")
        legend(axes)

    def __str__(self) -> str:
        (table,) = self.tables()
        return "\n".join([table.markdown(), "", *self._notes(), *self.pooled.remark()])

    def _notes(self) -> list[str]:
        """What stands below the table: the best of it, what it is compared with, and last what it is of."""
        block, k = self.best
        last = max(self.scores)
        first = self.scores[last][self.config.ks[0]]
        return [
            f"best (block {block}, k = {k}, chosen on these images): {self.scores[block][k].top1:.1f}",
            f"block {last}, k = {first.k}: {first.top1:.1f}",
            f"largest class: {self.pooled.majority:.1f}",
            f"{self.data}, {first.n_train} training images, n = {first.n}, {self.pooled.pooling} token, "
            f"T = {first.temperature}",
        ]


def nearest_neighbours(
    model: nn.Module,
    data: ImageData,
    config: NeighbourConfig | None = None,
    *,
    out: Path,
    name: str = "model",
    data_name: str = "data",
    progress: bool = True,
    origin: Origin = UNSAID,
) -> NeighbourResult:
    """Classify the validation images by their nearest training images. Features are stored and reused.

    Args:
        model: a vision transformer that an adapter knows, on the device where it shall run.
        data: images without augmentation.
        config: settings of the study.
        out: parent of the study's folder.
        name: name of the model in tables.
        data_name: name of the data set in tables.
        progress: whether to show a progress bar.
        origin: whose weights these are and which command asks for it, for the folder's name and its page.

    Raises:
        InputError: if no image of a split can be read, or there are fewer than k.
    """
    config = config or NeighbourConfig()
    x = pool(model, data, config.pool, out=out, data_name=data_name, progress=progress, origin=origin)
    scores = knn_blocks(
        x.train, x.train_labels, x.val, x.val_labels, ks=config.ks, temperature=config.temperature,
        device=next(model.parameters()).device,
    )  # fmt: skip
    folder = StudyFolder(out, f"knn-{data_name}", {"vectors": x.identity, "config": asdict(config)}, state=origin.state)
    result = NeighbourResult(name, data_name, config, scores, x, folder.path)
    folder.finish(result.record(), str(result))
    notes = trust(NEIGHBOURS, origin, len(x.unreadable))
    shown = {"name": name, "data": data_name, "config": config}
    write_study_page(folder, NEIGHBOURS, result, model=model, notes=notes, origin=origin, **shown)
    return result
