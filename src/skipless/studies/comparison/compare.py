"""Run one study on several models and lay them side by side. The first model is the one named on the command line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from skipless.display import Link, Table
from skipless.display.values import place_name
from skipless.errors import InputError
from skipless.evaluators.probe.results import ProbeResult
from skipless.report.pages.page import PAGE
from skipless.studies.classifier import ClassifierResult, classify
from skipless.studies.comparison.asked import Comparison, Told
from skipless.studies.comparison.images import load_classified, load_found_boxes, load_masks
from skipless.studies.comparison.side_by_side import Best, SideBySide, page_of, write_side_by_side
from skipless.studies.config import ClassifierConfig, DiscoveryConfig, NeighbourConfig, PictureConfig, ProbeConfig
from skipless.studies.discovery import DiscoveryResult, discover
from skipless.studies.feature_pictures import draw_features, find_pictures, network_input
from skipless.studies.formatting import feature_name
from skipless.studies.neighbours import NeighbourResult, nearest_neighbours
from skipless.studies.pages.curves import Curves
from skipless.studies.pages.text import CLASSIFIER, LOST, NEIGHBOURS, PROBE, TOKENCUT, StudyText
from skipless.studies.segmentation import SegmentationResult, segment

ByModel = Mapping[str, Mapping[str, Mapping[str, float | None]]]  # scores by block, of each model, by what they are

_BLOCKS = "best: of all blocks, chosen on the images that it is scored on; per cent"


def compare_probes(comparison: Comparison, config: ProbeConfig) -> Iterator[Told]:
    """Probe every model, then compare their best blocks with the majority class."""
    train, val = load_masks(comparison)
    results: list[SegmentationResult] = []
    for source in comparison.sources:
        how = {"name": source.title, "statistics": source.statistics, "origin": comparison.origin(source)}
        results.append(segment(source.model, train, val, config, out=comparison.home, **how))
        yield Told(str(results[-1]), page_of(results[-1]))
    bests = [Best(r, r.probe.best.miou, f"blocks {r.probe.best.name}") for r in results]
    rows = [[f"{best.value or 0:.1f}", "+".join(map(str, best.result.probe.best.blocks))] for best in bests]
    majority = results[0].majority.miou or 0
    table = _table(
        ["linear probe", "mIoU", "best blocks"], results, rows, ["most frequent class", f"{majority:.1f}", "–"]
    )
    curves = {"mIoU by block": {r.model: _single_blocks(r.probe) for r in results}}
    figures = _figures(curves, "mIoU, %", ("most frequent class", majority), from_zero=True)
    yield _told(
        comparison, config, (PROBE, train.name, "mIoU"), bests, table, figures, unusable=len(results[0].probe.skipped)
    )


def compare_discoveries(comparison: Comparison, config: DiscoveryConfig) -> Iterator[Told]:
    """Run object discovery with every model, then compare last-block key and best feature with the whole image."""
    data = load_found_boxes(comparison)
    results: list[DiscoveryResult] = []
    for source in comparison.sources:
        how = {"name": source.title, "statistics": source.statistics, "origin": comparison.origin(source)}
        results.append(discover(source.model, data, config, out=comparison.home, **how))
        yield Told(str(results[-1]), page_of(results[-1]))
    bests = [Best(r, r.scores[r.best].percent, feature_name(r.best)) for r in results]
    rows = []
    for best in bests:
        key = best.result.last_key
        last = "–" if key is None else f"{best.result.scores[key].percent:.1f}"
        rows.append([last, f"{best.value:.1f} ({best.at})"])
    whole = results[0].whole_image.percent
    trivial = ["whole image", *[f"{whole:.1f}"] * 2]
    table = _table(["CorLoc", "last block's key", "best"], results, rows, trivial)
    curves = {
        f"CorLoc by block, features: {kind}": {
            r.model: {str(block): score.percent for (block, own), score in r.scores.items() if own == kind}
            for r in results
        }
        for kind in config.kinds
    }
    figures = _figures(curves, "CorLoc, %", ("whole image", whole), from_zero=True)
    text = TOKENCUT if config.method == "tokencut" else LOST
    yield _told(
        comparison, config, (text, data.name, "CorLoc"), bests, table, figures, unusable=len(results[0].unreadable)
    )


def compare_neighbours(comparison: Comparison, config: NeighbourConfig) -> Iterator[Told]:
    """Run k-NN with every model, then compare their best blocks with the largest class."""
    results: list[NeighbourResult] = []
    for result in _classify_each(comparison, nearest_neighbours, config):
        results.append(result)
        yield Told(str(result), page_of(result))
    bests = [Best(r, r.scores[r.best[0]][r.best[1]].top1, "block {}, k = {}".format(*r.best)) for r in results]
    curves = {
        f"k-NN top-1 by block, k = {k}": {
            r.model: {str(block): by_k[k].top1 for block, by_k in r.scores.items()} for r in results
        }
        for k in config.ks
    }
    yield _classified(comparison, config, NEIGHBOURS, "k-NN", bests, curves)


def compare_classifiers(comparison: Comparison, config: ClassifierConfig) -> Iterator[Told]:
    """Train linear classifiers on every model, then compare their best blocks with the largest class."""
    results: list[ClassifierResult] = []
    for result in _classify_each(comparison, classify, config):
        results.append(result)
        yield Told(str(result), page_of(result))
    bests = [Best(r, r.best[1], f"block {r.best[0]}") for r in results]
    curves = {
        "linear top-1 by block": {r.model: {str(score.block): score.top1 for score in r.probe.blocks} for r in results}
    }
    yield _classified(comparison, config, CLASSIFIER, "linear", bests, curves)


def compare_pictures(comparison: Comparison, config: PictureConfig) -> Iterator[Told]:
    """Draw the features of all models side by side."""
    images = find_pictures(comparison.folder, 8 if comparison.sample is None else comparison.sample)
    models = {source.title: (source.model, source.statistics) for source in comparison.sources}
    if len(models) < len(comparison.sources):
        names = ", ".join(source.title for source in comparison.sources)
        raise InputError(f"models of one name, {names}, cannot be told apart in a picture; rename a folder")
    origin = comparison.origin(comparison.sources[0])
    folder = place_name(comparison.folder.resolve())
    drawn = draw_features(models, images, config, out=comparison.home, data_name=folder, origin=origin)
    for path in drawn:
        yield Told(f"wrote {path}")
    given = "\n".join(network_input(name, *of, config) for name, of in models.items())
    yield Told(given, drawn[-1].parent / PAGE)


def _classify_each(comparison: Comparison, study: Callable[..., Any], config: Any) -> Iterator[Any]:
    """Run a study with every model on the given data, or on the data that the first model was trained on."""
    for source, images, title in load_classified(comparison):
        how = {"name": source.title, "data_name": title, "origin": comparison.origin(source)}
        yield study(source.model, images, config, out=comparison.home, **how)


def _classified(
    comparison: Comparison,
    config: NeighbourConfig | ClassifierConfig,
    text: StudyText,
    short: str,
    bests: Sequence[Best],
    curves: ByModel,
) -> Told:
    """What is told of studies whose score is top-1 accuracy, beside that of the largest class."""
    results = [best.result for best in bests]
    majority = results[0].pooled.majority
    rows = [[f"{best.value:.1f}", best.at] for best in bests]
    table = _table([short, "best top-1", "at"], results, rows, ["largest class", f"{majority:.1f}", "–"])
    figures = _figures(curves, "top-1, %", ("largest class", majority))
    return _told(
        comparison,
        config,
        (text, results[0].data, "top-1"),
        bests,
        table,
        figures,
        unusable=len(results[0].pooled.unreadable),
    )


def _table(head: list[str], results: Sequence[Any], rows: list[list[str]], trivial: list[str]) -> Table:
    """A row for each model, whose name leads to its own page, and the trivial baseline below them."""
    named = [
        [r.model if r.folder is None else Link(r.model, f"../{r.folder.name}/index.html"), *row]
        for r, row in zip(results, rows, strict=True)
    ]
    return Table(head, [*named, trivial], _BLOCKS, align=f"l{'r' * (len(head) - 1)}")


def _single_blocks(probe: ProbeResult) -> dict[str, float | None]:
    """mIoU by block; sets of several blocks are in the table alone."""
    return {score.name: score.miou for score in probe.blocks if len(score.blocks) == 1}


def _figures(
    curves: ByModel,
    label: str,
    trivial: tuple[str, float],
    *,
    from_zero: bool = False,
) -> list[Curves]:
    return [Curves(title, by_model, label, trivial, from_zero) for title, by_model in curves.items()]


def _told(
    comparison: Comparison,
    config: Any,
    of: tuple[StudyText, str, str],
    bests: Sequence[Best],
    table: Table,
    figures: Sequence[Curves],
    *,
    unusable: int,
) -> Told:
    """The table, and the page that was written of it where there is more than one model.

    Args:
        comparison: what was asked for.
        config: settings of the study.
        of: what is said of the study, and the names of the data set and of the score.
        bests: the best of each model.
        table: a row for each.
        figures: a line for each.
        unusable: images that were left out.
    """
    shown = SideBySide(*of, bests, table, figures, unusable, getattr(config, "select", ""))
    page = write_side_by_side(comparison, config, shown) if len(bests) > 1 else None
    return Told(table.markdown(), page)
