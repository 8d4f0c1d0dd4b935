"""What every result of the library shows: one line, text, HTML, and a picture where it has one."""

import importlib
import inspect
import itertools
import re
import sys
import typing
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reference.records import samples
from reference.run_folders import write_run

from skipless.display import Record, Table
from skipless.display.axes import legend, lines_by_name
from skipless.errors import InputError
from skipless.recipes import ModelConfig, table1
from skipless.report.run_records import read_run
from skipless.training import FitResult

mpl.use("Agg")

PUBLIC = (
    *("skipless", "skipless.conditioning", "skipless.conditioning.measurement.network_jacobian", "skipless.data"),
    *("skipless.data.dense", "skipless.data.multicrop", "skipless.data.scenes", "skipless.data.shards"),
    *("skipless.data.text", "skipless.evaluators.language", "skipless.evaluators.quantisation"),
    *("skipless.evaluators", "skipless.init", "skipless.models", "skipless.nn", "skipless.optim", "skipless.planning"),
    *("skipless.planning.bottlenecks", "skipless.planning.profiling", "skipless.planning.table", "skipless.recipes"),
    *("skipless.report.condition_number", "skipless.report.run_records", "skipless.studies", "skipless.studies.top1"),
    *(
        "skipless.adapters",
        "skipless.sweep",
        "skipless.sweep.rates",
        "skipless.tasks",
        "skipless.tasks.dino.collapse",
        "skipless.training",
    ),
)
ONE_BLOCK = {"depth": 1, "embed_dim": 8, "patch_size": 2}
# What is given in, not found out: its own `repr` is what one would type.
SETTINGS = frozenset({
    *("Assumptions", "BlockContext", "ClassificationProtocol", "ClassifierConfig", "Crops", "DINOConfig"),
    *("DenseProtocol", "DiscoveryConfig", "EvalLoader", "FeatureConfig", "FitConfig", "HeadOptimizer"),
    *("ImageConfig", "ImageTransform", "Keeping", "LanguageConfig", "ModelConfig", "MultiCropConfig"),
    *("NeighbourConfig", "NeighboursConfig", "OptimizerConfig", "Order", "PhotoTransform", "PictureConfig"),
    *("PoolConfig", "ProbeConfig", "Rows", "ScheduleConfig", "Setting", "SkiplessInit", "SupervisedConfig"),
    *("Metric", "Quantisation", "QuantisationConfig", "SineLoraConfig"),
    *("HeldOutConfig", "Published", "TextConfig", "Top1Config", "ZeroShotConfig", "BoxItem", "SegmentationItem"),
    *("AttentionConfig", "Campaign", "Skipped"),
})  # fmt: skip
# Tables have tests of their own, the base of recipes has kinds, the others would take files.
FOUND_ELSEWHERE = frozenset({"DenseSet", "Recipe", "StoredImages", "Table"})


def _classes(hint: Any) -> set[type]:
    """The dataclasses in an annotation."""
    inner = [_classes(part) for part in typing.get_args(hint)]
    own = {hint} if inspect.isclass(hint) and is_dataclass(hint) else set()
    return own.union(*inner)


def _hints(of: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(of)
    except (NameError, TypeError):  # it names what is imported for type checkers only
        return {}


def _public_dataclasses() -> dict[str, type]:
    """Every dataclass that is public, that a public function or property returns, or that one of these holds."""
    found: set[type] = set()
    for module in map(importlib.import_module, PUBLIC):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]:
            value = getattr(module, name)
            found |= _classes(value) | _classes(_hints(value).get("return") if inspect.isfunction(value) else None)
    left = list(found)
    while left:
        cls = left.pop()
        members = [part.fget if isinstance(part, property) else part for part in vars(cls).values()]
        returned = [_hints(part).get("return") for part in members if inspect.isfunction(part)]
        new = set().union(*(_classes(hint) for hint in [*_hints(cls).values(), *returned])) - found
        found |= new
        left += new
    ours = [cls for cls in found if cls.__module__.split(".")[0] == "skipless"]  # PEFT's are its own
    return {cls.__name__: cls for cls in ours if not cls.__name__.startswith("_")}


RESULTS = {name: cls for name, cls in sorted(_public_dataclasses().items()) if name not in SETTINGS}
NAMES = sorted(RESULTS.keys() - FOUND_ELSEWHERE)
PICTURES = [name for name in NAMES if issubclass(RESULTS[name], Record) and RESULTS[name]._draw is not Record._draw]


def test_no_result_is_forgotten() -> None:
    assert len(RESULTS) > 50  # the walk finds them
    plain = [name for name, cls in RESULTS.items() if not issubclass(cls, Record | Table)]
    assert not plain, "results that show themselves as plain dataclasses"
    assert samples().keys() == set(NAMES), "results without a sample in tests/reference/records.py"
    assert {name for name, record in samples().items() if record._has_picture()} == set(PICTURES)


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_one_line_in_a_list(name: str) -> None:
    record = samples()[name]
    for shown in (repr(record), repr([record])):
        assert "\n" not in shown
        assert len(shown) <= 120, shown
    assert name in repr(record)
    assert len(str(record)) > 5


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_whole_html(name: str) -> None:
    before = pyplot.get_fignums()
    html = samples()[name]._repr_html_()
    root = ElementTree.fromstring(html)
    tables = list(root.iter("table"))
    assert tables
    for table in tables:
        widths = {len(row) for row in table.iter("tr")}
        assert len(widths) == 1
        assert all(cell.text or len(cell) or cell.tag == "td" for cell in table.iter("th"))
    assert not list(root.iter("b")), "a name was taken for HTML"
    assert "background" not in html.replace("background:none", "")
    svg = [element for element in root.iter() if element.tag.endswith("svg")]
    assert len(svg) == (name in PICTURES)
    assert all("currentColor" in ElementTree.tostring(one, "unicode") for one in svg if one.findall(".//{*}text"))
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("name", PICTURES)
def test_plot_draws_into_the_given_axes(name: str) -> None:
    before = pyplot.get_fignums()
    axes = Figure().add_subplot()
    assert samples()[name].plot(axes) is axes
    assert samples()[name].plot(ax=axes) is axes
    assert axes.has_data() or axes.images
    axes.figure.canvas.draw()
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("name", PICTURES)
def test_plot_makes_one_figure_of_pyplot(name: str) -> None:
    settings, before = dict(mpl.rcParams), pyplot.get_fignums()
    axes = samples()[name].plot()
    assert isinstance(axes, Axes)
    assert len(pyplot.get_fignums()) == len(before) + 1
    pyplot.close(axes.figure)  # pyright: ignore[reportArgumentType]
    assert pyplot.get_fignums() == before
    assert dict(mpl.rcParams) == settings


def test_what_has_no_picture_says_so() -> None:
    before = pyplot.get_fignums()
    with pytest.raises(InputError, match=r"Exported has no picture; print it"):
        samples()["Exported"].plot()
    assert pyplot.get_fignums() == before


def test_without_matplotlib_tables_are_shown_and_plot_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    html = samples()["InitReport"]._repr_html_()
    assert "<table" in html
    assert "<svg" not in html
    with pytest.raises(InputError, match="pip install .matplotlib"):
        samples()["InitReport"].plot()


def test_two_pictures_on_a_page_share_no_name() -> None:
    html = samples()["ConditioningReport"]._repr_html_() + samples()["InitReport"]._repr_html_()
    root = ElementTree.fromstring(f"<div>{html}</div>")
    defined: dict[str, str] = {}
    for element in root.iter():
        if (name := element.get("id")) is not None:
            element.tail = None
            assert defined.setdefault(name, ElementTree.tostring(element, "unicode")) == ElementTree.tostring(
                element, "unicode"
            )


@pytest.mark.parametrize(
    "names",
    [
        [*map(str, range(12)), "8+9+10+11"],
        ["0", "1", "2+3+4+5+6+7+8+9+10+11+12+13+14+15+16+17+18+19", "20"],
        [*map(str, range(24)), "20+21+22+23"],
        [f"{rate:g}" for rate in (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)],
    ],
)
def test_names_below_a_picture_do_not_meet(names: list[str]) -> None:
    axes = Figure(figsize=(6.4, 3.4), layout="constrained").add_subplot()
    lines_by_name(axes, names, {"a": [1.0] * len(names)}, "score")
    axes.figure.draw_without_rendering()  # pyright: ignore[reportAttributeAccessIssue]
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    upright = all(label.get_rotation() == 0 for label in labels)
    assert not upright or all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


@pytest.mark.parametrize("name", ["_hidden", "a$b$c", "$\\frac{$", "x" * 300])
def test_any_name_is_a_label_of_a_line(name: str) -> None:
    axes = Figure(layout="constrained").add_subplot()
    lines_by_name(axes, ["0", "1"], {name: [1.0, 2.0], "other": [2.0, None]}, "score")
    legend(axes, above=True)
    axes.figure.draw_without_rendering()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(axes.get_legend_handles_labels()[1]) == 2


def test_one_is_one() -> None:
    """A count of one stands before a noun in the singular, in every line that a result shows."""
    shown = FitResult(1, 1.0, 2.0, {})
    recipe = table1("digits").with_(fit__epochs=1)
    for text in (repr(shown), str(shown), shown.work, repr(recipe), ModelConfig(kwargs=ONE_BLOCK).title):
        assert not re.search(r"\b1 (step|epoch|block)s\b", text), text
    assert "0.5 epochs" in repr(FitResult(3, 0.5, 2.0, {}))


def test_a_finished_run_draws_its_losses_whatever_its_log_holds(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "_a$b$")
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 1, "epoch": 0.1, "loss": NaN}\n{"step": "x"}\n[]\n{"st')
    drawn = FitResult(300, 30.0, 48.5, {}, folder=folder).plot(Figure().add_subplot())
    x, y = drawn.lines[0].get_data()
    run = read_run(write_run(tmp_path / "whole"))
    assert (list(x), list(y)) == (list(run.epoch), list(run.loss))
    with pytest.raises(InputError, match="no run folder"):
        FitResult(300, 30.0, 48.5, {}).plot()
