"""Section 6.2 end to end, made tiny: scenes, pretraining, evaluation, tables, figures and pages."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from reference.tiny_scale import EPOCHS, make_tiny

from skipless.errors import InputError
from skipless.experiments.dense.paper import PAPER_FIGURE3, PAPER_TABLE2, PAPER_TABLE3, PAPER_TABLE4, Key
from skipless.experiments.dense.pretraining.runs import Member
from skipless.experiments.dense.run import reproduce_dense
from skipless.experiments.dense.scores import evaluation as dense_evaluation


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as context:
        make_tiny(context)
        yield context


@pytest.fixture(scope="module")
def made(patch, tmp_path_factory) -> tuple[Path, dict[str, dict[str, Path]]]:
    """Every table and figure, from one folder."""
    out = tmp_path_factory.mktemp("dino")
    # Ten and thirty pictures of COCO's validation set are the paper's; twelve are here.
    patch.setitem(
        __import__("skipless.experiments.dense.scores.pictures", fromlist=["IMAGES"]).IMAGES, "figure7", slice(10, 12)
    )
    asked = ("table2", "figure2", "figure3", "table4", "table3", "figure4", "figure7", "figure8", "figure9")
    return out, {what: reproduce_dense(what, "scenes", out, command=f"skipless reproduce {what}") for what in asked}


@pytest.fixture(scope="module")
def small(patch, tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """Table 4 from two runs alone, of 2 and of 1 block: what every test run can afford."""
    out = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as context:
        two = (Member("skip", "adamw", 2, 0), Member("skipless + init", "adamw", 1, 0))
        context.setattr("skipless.experiments.dense.run.members", lambda *_: two)
        return out, reproduce_dense("table4", "scenes", out, command="skipless reproduce table4")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_table_is_made_from_nothing(small) -> None:
    out, files = small
    assert sorted(path.name for path in (out / "data").iterdir()) == ["coco", "imagenet", "voc"]
    stated = {
        (line["model"], line["data"]): line
        for line in rows(files["table4.csv"])
        if line["epoch"] == f"{EPOCHS} of {EPOCHS}"
    }
    assert stated["skip", "VOC2012"]["paper"] == "32.3"
    assert stated["skip", "COCO20k"]["n"] == "1"
    assert stated["skipless + init", "COCO20k"]["paper"] == ""  # the paper's 11 blocks are at 200 epochs
    for name in ("table4.md", "table4.csv", "table4.html", "table4-depth.svg", "table4-depth.png"):
        assert files[name].stat().st_size > 500
    assert "What differs from the paper" in files["table4.html"].read_text(encoding="utf-8")
    assert (
        len(list(out.glob("evaluations/*/*/tokencut-*/found.json")))
        + len(list(out.glob("evaluations/*-untrained/tokencut-*/found.json")))
        == 2 * 2 * 2 + 2 * 2
    )  # runs x epochs x data sets, and before training


@pytest.mark.slow
def test_every_table_and_figure_is_made_from_nine_runs(made) -> None:
    out, files = made
    assert len(list((out / "runs").iterdir())) == 6 + 3
    assert sorted(path.name for path in (out / "data").iterdir()) == ["ade20k", "coco", "imagenet", "voc"]
    for what, written in files.items():
        assert {path.suffix for path in written.values()} >= {".md", ".html", ".png"}
        page = written[f"{what}.html"].read_text(encoding="utf-8")
        assert "What differs from the paper" in page
        assert "ViT of 5 blocks, width 12" in page
        assert "http" not in re.sub(
            r"https?://(arxiv\.org|www\.w3\.org|purl\.org|creativecommons\.org)[^\"<]*", "", page
        )
        for path in written.values():
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    assert min(picture.size) > 100
    assert not list(out.glob("evaluations/**/features"))


@pytest.mark.slow
def test_a_table_has_every_number_of_the_papers_beside_ours(made) -> None:
    _, files = made
    for what, count in (("table2", 36), ("figure3", 12), ("table3", 15), ("table4", 10)):
        lines = rows(files[what][f"{what}.csv"])
        stated = [line for line in lines if line["paper"]]
        assert len(stated) == count, what
        shallow = [line for line in stated if what == "table3" and line["blocks"] in ("2", "3")]  # no four side by side
        assert all(line["n"] == "0" for line in shallow)
        assert all(line["n"] == "1" and 0 <= float(line["mean"]) <= 100 for line in stated if line not in shallow)
    table2 = rows(files["table2"]["table2.csv"])
    (found,) = [
        line for line in table2
        if (line["features"], line["model"], line["optimizer"]) == ("multiscale", "skip", "SOAP")
        and line["data"] == "ADE20K" and line["epoch"] == f"{EPOCHS} of {EPOCHS}"
    ]  # fmt: skip
    assert found["paper"] == "25.3"
    (found,) = [
        line for line in table2
        if line["features"].endswith("best block") and line["model"] == "skipless + init"
        and line["optimizer"] == "AdamW" and line["data"] == "COCO-Stuff" and line["epoch"] == f"2 of {EPOCHS}"
    ]  # fmt: skip
    assert found["paper"] == "28.3"
    assert found["where"].startswith("block ")
    table4 = {(line["model"], line["blocks"], line["epoch"]): line for line in rows(files["table4"]["table4.csv"])
              if line["data"] == "VOC2012" and line["paper"]}  # fmt: skip
    assert {key: line["paper"] for key, line in table4.items()} == {
        ("skip", "5", "3 of 3"): "32.3",
        ("skipless + init", "5", "3 of 3"): "53.5",
        ("skipless + init", "4", "2 of 3"): "47.4",
        ("skipless + init", "3", "2 of 3"): "43.9",
        ("skipless + init", "2", "2 of 3"): "34.8",
    }


def test_what_the_paper_repeats_agrees() -> None:
    """Table 3 repeats Table 2's multiscale numbers, Table 4 those called Figure 3."""
    multiscale = PAPER_TABLE2["multiscale"]
    assert PAPER_TABLE3[Key("skip")] == multiscale[Key("skip")]
    assert PAPER_TABLE3[Key("skipless + init", epoch=200)] == multiscale[Key("skipless + init", epoch=200)]
    assert PAPER_TABLE4[Key("skip")] == PAPER_FIGURE3[Key("skip")]
    assert PAPER_TABLE4[Key("skipless + init")] == PAPER_FIGURE3[Key("skipless + init")]
    assert PAPER_FIGURE3[Key("skipless + init", "soap", 200)] == {"VOC2012": 68.1, "COCO20k": 54.1}


@pytest.mark.slow
def test_untrained_and_trivial_stand_beside_the_trained(made) -> None:
    _, files = made
    lines = rows(files["figure3"]["figure3.csv"])
    assert {line["model"] for line in lines if line["epoch"] == "0"} == {"skip", "skipless", "skipless + init"}
    assert lines[-1]["model"] == "a box around the whole image"
    assert "<svg" in files["figure3"]["figure3.html"].read_text(encoding="utf-8")
    assert "| SOAP |" in files["figure9"]["figure9.md"].read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_is_done_is_not_done_again(made, patch) -> None:
    out, files = made
    before = files["table2"]["table2.csv"].read_bytes()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(dense_evaluation, "run_jobs", lambda *_, **__: pytest.fail("an evaluation ran twice"))
        context.setattr(
            "skipless.experiments.dense.pretraining.runs.run_jobs", lambda *_, **__: pytest.fail("a run was made twice")
        )
        reproduce_dense("table2", "scenes", out)
        assert files["table2"]["table2.csv"].read_bytes() == before
    found = next(iter(sorted((out / "evaluations").glob("*/epoch-0003/probe-VOC2012/found.json"))))
    content = json.loads(found.read_text())
    found.write_text(json.dumps({**content, "asked": {**content["asked"], "weights": "of another teacher"}}))
    reproduce_dense("table2", "scenes", out)
    assert json.loads(found.read_text()) == content


@pytest.mark.slow
def test_another_recipe_in_a_folder_is_refused(made) -> None:
    out, _ = made
    with pytest.raises(InputError, match=r"was made by another recipe \(.*epochs was 3, now 2"):
        reproduce_dense("figure9", "scenes", out, epochs=2)


@pytest.mark.slow
def test_a_collapsed_run_is_a_line_and_not_a_number(made, tmp_path) -> None:
    out, _ = made
    shutil.copytree(out / "data", tmp_path / "data")
    shutil.copytree(out / "runs", tmp_path / "runs")
    for path in (tmp_path / "runs").glob("*/run.json"):
        path.write_text(path.read_text().replace(str(out), str(tmp_path)))
    run = tmp_path / "runs" / Member("skipless", "soap", 5, 0).slug
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "diverged": True, "reason": "rank 1 at step 3"}))
    for epoch in (2, 3):
        (run / f"teacher-epoch-{epoch:04d}.safetensors").unlink()
    files = reproduce_dense("figure3", "scenes", tmp_path)
    lines = [line for line in rows(files["figure3.csv"]) if line["model"] == "skipless" and line["optimizer"] == "SOAP"]
    assert {line["failed"] for line in lines} == {"1"}
    assert all(line["mean"] == "" and line["n"] == "0" for line in lines)
    page = files["figure3.html"].read_text(encoding="utf-8")
    assert "collapsed" in page
    assert "stopped: rank 1 at step 3" in page


def test_the_papers_scale_says_what_it_needs(tmp_path) -> None:
    with pytest.raises(InputError) as caught:
        reproduce_dense("table4", "vit_small", tmp_path / "out", data={"coco": tmp_path, "voc": tmp_path / "absent"})
    assert "--data IMAGENET" in str(caught.value)
    assert f"voc: {str(tmp_path / 'absent')!r} is no folder" in str(caught.value)
    assert "--ade20k" not in str(caught.value)


def test_the_papers_scale_lists_the_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.undo()
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="6 pretrainings are not finished") as caught:
        reproduce_dense("figure9", "vit_small", tmp_path / "out", data={"imagenet": tmp_path / "imagenet"})
    assert str(caught.value).count("torchrun --nproc-per-node 8 -m skipless train dino --scale vit_small") == 6
