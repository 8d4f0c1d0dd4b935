"""The cells of a run's line in the index."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

from skipless.display.values import counted
from skipless.report.labels import OPTIMIZER_LABEL, ROW_CLASS, duration, rate
from skipless.report.runs_index.links import href, link, shown
from skipless.report.runs_index.run_line import RunLine, finite
from skipless.report.runs_index.sparkline import sparkline

Entry = tuple[str, Path]  # what is linked to, in words, and where it lies

# The columns, and whether they are sorted as text or as numbers; those of neither are not sorted.
COLUMNS: Mapping[str, Literal["text", "number", ""]] = {
    "run": "text",
    "state": "text",
    "last": "number",
    "best": "number",
    "loss curve": "",
    "model": "text",
    "optimizer": "text",
    "learning rate": "number",
    "recipe": "text",
    "seed": "number",
    "final loss": "number",
    "time": "number",
    "started": "text",
    "commit": "text",
    "pages": "",
}
CAPTION = (
    "Last and best: the number that runs of a recipe are judged by, at its last and at its best evaluation. Loss "
    "curve: training loss over the planned length of the run; a cross marks where it diverged. Final loss: mean "
    "training loss over the last tenth of what was trained. Time: of training alone."
)
_METRICS = {"top1": "top-1, %", "knn_best": "k-NN, %", "bits_per_byte": "bits per byte"}


def run_cells(run: RunLine, root: Path, pages: Sequence[Entry], page: Path) -> list[str]:
    """A cell for each of `COLUMNS`.

    Args:
        run: the run.
        root: folder of the index, from which the run's name counts.
        pages: of this run.
        page: where the index will lie.
    """
    inner = run.folder.relative_to(root)
    name = shown(inner if inner.parts else run.folder.resolve().name).replace("/", "/<wbr>")
    epochs, seed = run.epochs, finite(run.at("seed"))
    optimizer, commit = str(run.at("recipe.optimizer.name", "–")), str(run.at("commit", ""))
    started = str(run.at("started", ""))
    best_at = "" if run.best_epoch is None else f"epoch {run.best_epoch:.3g}"
    curve = sparkline(run.curve, epochs, broken=run.state == "diverged")
    return [
        f'<th scope="row" class="path"><a href="{escape(href(run.folder, page))}/">{name}</a></th>',
        _text(run.state, run.detail, f"state {run.state.replace(' ', '-')}"),
        _number(run.last, lambda value: f"{value:.4g}", _METRICS.get(run.metric, run.metric)),
        _number(run.best, lambda value: f"{value:.4g}", best_at),
        f"<td>{curve or '–'}</td>",
        _text(run.row or "–", _model(run), ROW_CLASS[run.row] if run.row else ""),
        _text(OPTIMIZER_LABEL.get(optimizer, optimizer)),  # pyright: ignore[reportArgumentType, reportCallIssue]
        _number(finite(run.at("recipe.optimizer.lr")), lambda value: rate(value) if value > 0 else f"{value:g}"),
        _text(run.at("recipe.name", "–"), _joined(run.at("recipe.scale"), run.at("recipe.data.data"), _epochs(epochs))),
        _number(seed, lambda value: f"{value:.0f}"),
        _number(run.final_loss, lambda value: f"{value:.4g}"),
        _number(run.seconds, duration),
        _text(started[:10] or "–", key=started),
        f'<td><code title="{escape(commit)}">{escape(_short(commit)) or "–"}</code></td>',
        f"<td>{_pages(pages, page)}</td>",
    ]


def _text(value: Any, small: str = "", name: str = "", *, key: str | None = None) -> str:
    attribute = f' class="{name}"' if name else ""
    sorted_by = "" if key is None else f' data-key="{escape(key)}"'
    below = f"<small>{shown(small)}</small>" if small else ""
    return f"<td{attribute}{sorted_by}>{shown(str(value))}{below}</td>"


def _number(value: float | None, told: Callable[[float], str], small: str = "") -> str:
    if value is None:
        return '<td class="number" data-key="">–</td>'
    below = f"<small>{escape(small)}</small>" if small else ""
    return f'<td class="number" data-key="{value!r}">{escape(told(value))}{below}</td>'


def _joined(*parts: Any) -> str:
    return ", ".join(dict.fromkeys(str(part) for part in parts if part))


def _epochs(epochs: float | None) -> str:
    return "" if epochs is None else counted(epochs, "epoch")


def _model(run: RunLine) -> str:
    """The model in a few words, as `ModelConfig.title` has it."""
    sizes, said = run.at("recipe.model.kwargs", {}), str(run.at("recipe.model.name", ""))
    if isinstance(sizes, Mapping) and {"depth", "embed_dim", "patch_size"} <= sizes.keys():
        said = f"ViT of {_blocks(sizes['depth'])}, width {sizes['embed_dim']}, patch {sizes['patch_size']}"
    core, gain = run.at("recipe.model.attention", {}), run.at("recipe.model.skip_gain", 1.0)
    words = [core.get("core", ""), *(f"{key} {value}" for key, value in core.items() if key != "core")] if core else []
    told = f", {', '.join(words)} attention" if words else ""
    return f"{said}{told}{f', skips that fall to {gain}' if gain != 1 else ''}"


def _blocks(depth: Any) -> str:
    return counted(depth, "block") if isinstance(depth, int) else f"{depth} blocks"


def _short(commit: str) -> str:
    """The first letters of a commit, and whether files were changed."""
    return commit[:7] + ("+" if commit.endswith("+") else "")


def _pages(pages: Sequence[Entry], page: Path) -> str:
    links = [link(target, page, title) for title, target in pages]
    if not links:
        return "–"
    if len(links) == 1:
        return links[0]
    inner = "<br>".join(links)
    return f"<details><summary>{len(links)} pages</summary>{inner}</details>"
