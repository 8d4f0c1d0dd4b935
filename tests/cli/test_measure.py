"""`skipless measure`: a timm name or a run folder in, a table, JSON and a picture out."""

import json

import pytest
import torch

from skipless.cli.verbs import init, measure as verb
from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.errors import InputError
from skipless.evaluators import activation_statistics
from skipless.evaluators.quantisation.statistics.activations import SHOWN
from skipless.models import create_model, remove_skips_
from skipless.recipes import run, table1
from skipless.recipes.recipe import ACTIVATION_IMAGES, Recipe
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report


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


def test_a_run_follows_its_activations_and_a_resumed_one_may_ask_for_both(tmp_path):
    recipe = table1("digits", "skipless + init", "soap").with_(
        model__kwargs=TINY, fit__epochs=1, fit__batch_size=512, fit__progress="none", fit__measure_every=1
    )
    alone = recipe.with_(fit__measured=("activations",))
    run(alone, tmp_path / "run")
    lines = [json.loads(line)["measurement"] for line in (tmp_path / "run/measurements.jsonl").read_text().splitlines()]
    assert [set(line) for line in lines] == [{"activations"}] * 3
    images = recipe.load().labelled
    given = torch.stack([images.val[index][0] for index in range(ACTIVATION_IMAGES)])
    found = activation_statistics(recipe.model.build(images, 0), [given], bits=(8, 4))
    kept = lines[0]["activations"]
    for block in range(2):
        for site, (values, sqnr) in {one: (kept["kurtosis"][one], kept["sqnr_4"][one]) for one in SHOWN}.items():
            assert values[block] == pytest.approx(found.at(block, site).kurtosis["pooled"], rel=1e-6)
            assert sqnr[block] == pytest.approx(found.at(block, site).sqnr[4]["token"], rel=1e-6)
    (tmp_path / "run/result.json").unlink()
    both = recipe.with_(fit__measured=("activations", "conditioning"))
    assert {"activations", "blocks"} <= set(both.measure(both.load())(both.model.build(images, 0)))
    run(both, tmp_path / "run")


@pytest.mark.usefixtures("unchecked")
def test_what_is_measured_is_named_or_refused():
    assert "measured" not in json.dumps(table1("digits").as_json()), "a record of before has no such field"
    assert Recipe.from_json(table1("digits").as_json()).fit.measured == ("conditioning",)
    for wrong, words in ((("kurtosis",), "measured 'kurtosis'; there is conditioning, activations"), ((), "nothing")):
        with pytest.raises(InputError, match=words):
            table1("digits").with_(fit__measured=wrong)


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
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for part in (
        "n = 1",
        "The paper’s",
        "Made with",
        "Versions",
        'href="conditioning.json"',
        "<table",
        "data:image/png",
    ):
        assert part in page
    given = f"--images 2 --full --network --rows 2 2 4 --dtype float64 --out {tmp_path}"
    assert f"skipless measure {folder} {given}" in page
    last = lines[-1]["measurement"]["blocks"][0]["attn"]["skipless"]["kappa"]["value"]
    assert values["blocks"][0]["attn"]["skipless"]["kappa"]["value"] == pytest.approx(last, rel=1e-4)


@pytest.mark.parametrize("images", [1, 2])
def test_no_line_is_printed_twice(folder, capsys, images):
    """A kappa that is only bounded was printed on the way, and again below the table."""
    measure(str(folder), images=images)
    told = capsys.readouterr()
    lines = [line.removeprefix("! ") for line in (told.out + told.err).splitlines() if line]
    assert any(line.startswith("K of blocks.1.attn") for line in lines)
    assert len(lines) == len(set(lines))
    assert ("image 2 of 2" in told.err) == (images == 2)
    assert (f"{images} validation image{'s' if images > 1 else ''} of digits") in told.out


@pytest.mark.parametrize(
    ("keep", "column"),
    [
        ({}, "k((K+I)(K+I)^T)"),
        ({"sub_blocks": ("attn", "mlp")}, "k(K K^T)"),
        ({"sub_blocks": ("mlp",)}, "k((K+I)(K+I)^T)"),
    ],
)
def test_columns_name_what_is_measured(keep, column):
    model = create_model("vit_tiny_patch16_224", skip=not keep, img_size=8, in_chans=1, **{**TINY, **keep}, seed=0)
    report = measure_conditioning(model, torch.randn(1, 1, 8, 8), parts=["attn"], forms="own")
    head, *_ = str(report).splitlines()
    assert column in head
    assert "Table 6" not in head
    assert f"{column}: kappa of the Gram matrix, as in the paper's Table 6" in str(report)


def test_a_column_of_blocks_with_and_without_skip_says_so():
    model = create_model("vit_tiny_patch16_224", skip=True, img_size=8, in_chans=1, **TINY, seed=0)
    remove_skips_(model.blocks[0])
    text = str(measure_conditioning(model, torch.randn(1, 1, 8, 8), parts=["attn"], forms="own"))
    assert "k(Gram)" in text.splitlines()[0]
    assert (
        "k(Gram): kappa of the Gram matrix, of K + I where the attention has its skip, of K where it has none" in text
    )


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


def test_a_page_of_something_else_stays_beside_the_measurement(folder, tmp_path) -> None:
    (tmp_path / "index.html").write_text("mine")
    measure(str(folder), blocks=(0,), tokens=2, out=tmp_path)
    assert (tmp_path / "index.html").read_text() == "mine"
    assert "Conditioning of" in (tmp_path / "conditioning.html").read_text(encoding="utf-8")


def test_a_measurement_of_an_earlier_version_is_kept_beside_reports(folder, tmp_path) -> None:
    measure(str(folder), blocks=(0,), tokens=2, out=tmp_path)
    (tmp_path / "conditioning.html").unlink()  # there was the index.html alone
    files = write_report(tmp_path, "table5", {}, Page("Table 5", "", "", "", []))
    index = files["index.html"].read_text(encoding="utf-8")
    assert 'href="conditioning.html"' in index
    assert 'href="table5.html"' in index


@pytest.mark.parametrize("failure", [KeyboardInterrupt, InputError("no")])
def test_what_is_cut_off_leaves_no_folder_behind(folder, tmp_path, monkeypatch, failure):
    def cut_off(*_, **__):
        raise failure

    monkeypatch.setattr(verb, "_measured", cut_off)
    with pytest.raises((KeyboardInterrupt, InputError)):
        measure(str(folder), out=tmp_path / "a" / "m2")
    monkeypatch.setattr("skipless.models.create_model", cut_off)
    with pytest.raises((KeyboardInterrupt, InputError)):
        init.init("vit_tiny_patch16_224", out=tmp_path / "b" / "w.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file", "file/below", "file/further/below"])
def test_a_folder_that_cannot_be_made_is_told_before_the_work(folder, tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    monkeypatch.setattr(verb, "_measured", None)  # it would fail otherwise
    with pytest.raises(InputError, match="choose another --out"):
        measure(str(folder), out=tmp_path / place)
