"""Tables 5 and 6 from a run's lines: ours beside the paper's, bounds never as values."""

import json

import pytest

from skipless.errors import InputError
from skipless.experiments.conditioning.figures import tokens_figure, training_figure
from skipless.experiments.conditioning.report import Moment, nearest, read_moments, table5_markdown, table6_markdown
from skipless.report.condition_number import number, short
from skipless.report.pictures.kappa_figure import depth_figure


def estimate(value: float, known: bool = True) -> dict:
    return {"value": value, "lower": value, "upper": value if known else None, "error": 0.0 if known else None}


def measurement(value: float, known: bool = True, skips: tuple = ()) -> dict:
    kappa = {
        "kappa": estimate(value**0.5, known),
        "kappa_gram": estimate(value, known),
        "rank": 7 if not known else 9,
        "size": 9,
    }
    form = "skip" if "attn" in skips else "skipless"
    tokens = {
        "std": 1.0, "excess_kurtosis": 0.0, "isotropy": 0.5, "gaussian_isotropy": 0.9, "edges": [-1.0, 0.0, 1.0],
        "density": [0.5, 0.5],
    }  # fmt: skip
    blocks = [{"index": i, "skips": list(skips), "attn": {form: kappa}, "tokens": [tokens]} for i in (0, 4, 7, 11)]
    rows = {"rows": 8, "images": 2, "tokens": [0], "outputs": [0, 1, 2, 3]}
    spectrum = {"kappa_gram": estimate(value, known), "rank": 3 if not known else 8, "shape": [8, 100]}
    network = {"rows": rows, "spectrum": spectrum}
    return {"blocks": blocks, "networks": {"class": network}, "images": 2, "dtype": "float64"}


def moments(**options) -> list[Moment]:
    return [Moment(share, measurement(10.0 + share, **options)) for share in (0.0, 1 / 15, 1 / 3, 2 / 3, 1.0)]


FOUND = {"skip": moments(skips=("attn", "mlp")), "skipless": moments(known=False), "skipless + init": moments()}


def test_table_6_has_both_at_the_papers_shares():
    lines = table6_markdown(FOUND, "a small model").splitlines()
    assert len(lines) == 2 + 5 * 3 + 2
    assert lines[5] == "| 0.07 | skip | 1.05, 1.49, 1.35, 1.04 | 10.1 | 10.1 | 10.1 | 10.1 |"
    assert lines[6].startswith("| 0.07 | skipless | ∞, ∞, ∞, ∞ | ≥ 10.1 (rank 7 of 9) |")
    assert "a small model" in lines[-1]


def test_table_5_names_its_rows():
    lines = table5_markdown(FOUND, "a small model").splitlines()
    assert "8 rows (2 images, class token, 4 features)" in lines[0]
    assert lines[5] == "| 0.07 | skip | 127 | 10.1 |"
    assert lines[6] == "| 0.07 | skipless | ∞ | ≥ 10.1 (rank 3 of 8) |"


def test_at_initialisation_alone_there_is_nothing_of_the_papers():
    lines = table6_markdown({"skip": moments()[:1]}, "x").splitlines()
    assert [line for line in lines if line.startswith("| 0")] == ["| 0 (init) | skip | – | 10 | 10 | 10 | 10 |"]


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (730.1, "730"), (9999.4, "9999"), (1e4, "1e4"), (6.66e32, "6.7e32")]
)
def test_numbers_have_three_digits(value, text):
    assert short(value) == text


def test_a_value_known_worse_than_to_a_tenth_is_a_bound():
    assert str(number({"value": 100.0, "lower": 50.0, "error": 0.5})) == "≥ 50"
    assert str(number({"value": 100.0, "lower": 99.0, "error": 0.01}, rank=9, size=9)) == "100"


def test_the_nearest_measurement_counts():
    assert nearest(FOUND["skip"], 0.3).share == 1 / 3


def test_a_run_is_read_by_its_steps(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"steps": 40}))
    lines = [{"step": step, "epoch": 0.0, "measurement": measurement(3.0)} for step in (0, 20, 40)]
    (tmp_path / "measurements.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert [moment.share for moment in read_moments(tmp_path)] == [0, 0.5, 1]
    with pytest.raises(InputError, match="is missing"):
        read_moments(tmp_path / "nowhere")


def test_pictures_are_drawn():
    columns = {"initialisation": FOUND["skip"][0].measurement["blocks"]}
    series = {row: [(0, number(estimate(2.0))), (4, number(estimate(1e30, known=row == "skip")))] for row in FOUND}
    for picture in (training_figure(FOUND, "t"), tokens_figure(columns, "t"), depth_figure(series, "kappa", "t")):
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 5000
