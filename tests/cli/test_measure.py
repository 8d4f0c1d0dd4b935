"""`skipless measure`: a timm name or a run folder in, a table, JSON and a picture out."""

import json

import pytest

from skipless.cli.verbs import measure as verb
from skipless.errors import InputError
from skipless.recipes import run, table1


def measure(model, **given):
    """The verb, its options already read."""
    verb.measure(verb.Options(model=model, **given))


TINY = {"embed_dim": 12, "depth": 2, "num_heads": 2, "patch_size": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = table1("digits", "skipless + init", "soap").with_(
        model__kwargs=TINY, fit__epochs=1, fit__batch_size=512, fit__progress="none", fit__measure_every=1
    )
    run(recipe, out)
    return out


def test_a_run_leaves_measurements_and_can_be_measured(folder, tmp_path, capsys):
    lines = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    measure(str(folder), images=2, dtype="float64", full=True, network=True, rows=(2, 2, 4), out=tmp_path)
    printed = capsys.readouterr().out
    assert "2 validation images of digits" in printed
    assert "kappa(J J^T)" in printed
    values = json.loads((tmp_path / "conditioning.json").read_text())
    assert values["trained"] is True
    assert set(values["blocks"][0]["attn"]) == {"skip", "skipless"}
    assert (tmp_path / "conditioning.png").stat().st_size > 5000
    last = lines[-1]["measurement"]["blocks"][0]["attn"]["skipless"]["kappa"]["value"]
    assert values["blocks"][0]["attn"]["skipless"]["kappa"]["value"] == pytest.approx(last, rel=1e-4)


def test_untrained_is_the_first_line(folder, tmp_path):
    measure(str(folder), images=2, dtype="float64", untrained=True, blocks=(1,), out=tmp_path)
    values = json.loads((tmp_path / "conditioning.json").read_text())
    first = json.loads((folder / "measurements.jsonl").read_text().splitlines()[0])["measurement"]
    expected = first["blocks"][1]["attn"]["skipless"]["kappa"]["value"]
    assert values["trained"] is False
    assert values["blocks"][0]["attn"]["skipless"]["kappa"]["value"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "vit_nowhere"}, "vit_nowhere"),
        ({"images": 0}, "--images 0"),
        ({"blocks": (7,)}, "blocks=(7,)"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, message):
    with pytest.raises(InputError) as refused:
        measure(**{"model": str(folder), **arguments})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
