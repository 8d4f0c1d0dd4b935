import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as st
from reference.run_folders import write_run

from skipless.experiments.supervised.cells import CellRuns as Cell, table1_cells
from skipless.experiments.supervised.figure import figure1_png, figure1_svg, panel_svg
from skipless.report.pictures.figure_style import COLOURS, spread_apart
from skipless.report.run_records import Setting, read_run

SETTING = Setting("ViT, width 32", "digits", 30, 10)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, ...]:
    """Three seeds, one seed, a diverged run beside a good one, all diverged, and two cells not run."""
    tmp_path = tmp_path_factory.mktemp("runs")
    good = [read_run(write_run(tmp_path / f"good{seed}", seed=seed)) for seed in range(3)]
    bad = read_run(write_run(tmp_path / "bad", seed=9, diverges_at=200, top1=None))
    return table1_cells(
        {
            ("skip", "AdamW"): good,
            ("skip", "SOAP"): good[:1],
            ("skipless", "AdamW"): [bad],
            ("skipless", "SOAP"): [good[0], bad],
        }
    )


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_svg_is_the_same_every_time_and_carries_no_date(cells) -> None:
    first = figure1_svg(cells, SETTING)
    assert first == figure1_svg(cells, SETTING)
    assert "<dc:date>" not in first


def test_both_panels_label_their_lines_directly(cells) -> None:
    found = texts(figure1_svg(cells, SETTING))
    assert found.count("AdamW") == found.count("SOAP") == 1
    assert found.count("skip") == found.count("skipless") == 2
    assert found.count("skipless + init") == 0  # not run: no line, no label
    assert found.count("chance, ln 10") == 2


def test_a_band_is_drawn_where_there_are_several_seeds(cells) -> None:
    assert 'id="FillBetweenPolyCollection' in panel_svg(cells, SETTING, "AdamW")
    assert 'id="FillBetweenPolyCollection' not in panel_svg(cells, SETTING, "SOAP")


def test_the_logged_losses_are_dots_beside_the_line(tmp_path: Path) -> None:
    """The page said that they are drawn behind; as a pale line they were hidden by the averaged one."""
    run = read_run(write_run(tmp_path / "r", steps=60))
    svg = panel_svg(table1_cells({("skip", "AdamW"): [run]}), SETTING, "AdamW")
    dots = re.findall(r'<use [^>]*fill-opacity: 0\.5"', svg)
    assert len(dots) == run.loss.size == 60


def test_chance_stands_at_ln_classes(cells) -> None:
    """The dashed line divides the axis as ln 10 divides its range, whatever the range is."""
    svg = panel_svg(cells, SETTING, "AdamW")
    dashed = re.search(r'd="M [\d.]+ ([\d.]+) \nL [\d.]+ \1 \n"[^>]*stroke-dasharray', svg)
    assert dashed is not None
    ticks = {text: y for y, text in re.findall(r'<text[^>]*?y="([\d.]+)"[^>]*>([\d.]+)</text>', svg)}
    lines = re.findall(r'd="M [\d.]+ ([\d.]+) \nL [\d.]+ \1 \n"[^>]*stroke: var\(--hairline\)', svg)
    assert len(lines) >= 2
    unit = (float(lines[0]) - float(lines[2])) / (2 * 0.5)  # grid lines stand 0.5 apart
    assert "0.5" in ticks
    assert (float(lines[0]) - float(dashed[1])) / unit == pytest.approx(math.log(10), abs=1e-3)


def test_the_inline_panel_follows_the_pages_colours(cells) -> None:
    svg = panel_svg(cells, SETTING, "SOAP")
    assert svg.startswith('<svg aria-hidden="true"')
    assert not any(colour in svg for colour in COLOURS.values())
    root = ElementTree.fromstring(svg)
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib


def test_ids_of_two_panels_do_not_clash(cells) -> None:
    left, right = (
        set(re.findall(r'clipPath id="([^"]+)"', panel_svg(cells, SETTING, name))) for name in ("AdamW", "SOAP")
    )
    assert left
    assert right
    assert not left & right


def test_nothing_run_still_draws(cells) -> None:
    assert "skip" not in texts(figure1_svg(table1_cells({}), SETTING))
    assert figure1_png(table1_cells({}), SETTING, dpi=20).startswith(b"\x89PNG")


def test_the_size_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    sizes = []
    for steps in (400, 4000):
        run = read_run(write_run(tmp_path / str(steps), steps=steps))
        sizes.append(len(panel_svg(table1_cells({("skip", "AdamW"): [run]}), SETTING, "AdamW")))
    assert sizes[1] < 1.2 * sizes[0]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=6), st.floats(0.01, 3))
def test_labels_end_up_apart_and_in_order(positions: list[float], gap: float) -> None:
    placed = spread_apart(positions, gap)
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    neighbours = [placed[after] - placed[before] for before, after in itertools.pairwise(order)]
    assert all(distance >= gap - 1e-9 for distance in neighbours)
    assert sum(placed) == pytest.approx(sum(positions), abs=1e-6)  # no drift up or down


def test_labels_already_apart_stay() -> None:
    assert spread_apart([3.0, 0.0, 1.5], gap=1.0) == [3.0, 0.0, 1.5]
