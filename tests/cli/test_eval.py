"""`skipless data` and `skipless eval`: what a person types to try the evaluators, from nothing to three columns."""

import json
from pathlib import Path

import numpy as np
import pytest
from reference.command import skipless
from reference.tiny_images import images

from skipless import cli
from skipless.studies import top1
from skipless.studies.neighbours import nearest_neighbours

SMALL = ["--epochs", "1", "--device", "cpu", "--progress", "none"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "voc"
    cli.main(["data", "scenes", "--train", "4", "--val", "3", "--size", "64", "--objects", "digits", "--out", str(out)])
    return str(out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "r1"
    cli.main(["train", "table1", "--skip", "--optimizer", "adamw", "--out", str(out), *SMALL])
    return str(out)


def test_a_run_is_laid_beside_its_untrained_model_and_what_is_trivial(capsys, run, scenes) -> None:
    code, printed, _ = skipless(
        capsys, "eval", run, "tokencut", "--data", scenes, "--blocks", "-1", "--kinds", "k", "--size", "16"
    )
    assert code == 0
    summary = printed[printed.index("| CorLoc | last block's key | best |") :]
    for row in ("| r1 |", "| r1, untrained |", "| whole image |"):
        assert row in summary
    code, printed, _ = skipless(capsys, "eval", run, "knn", "--ks", "5")
    assert code == 0
    assert "| r1, untrained |" in printed
    assert "| largest class |" in printed


def pages_told(printed: str) -> list[Path]:
    """The pages that were named, in their order."""
    return [Path(line.removeprefix("wrote ")) for line in printed.splitlines() if line.endswith("index.html")]


def test_every_page_that_was_written_is_named(capsys, run, scenes) -> None:
    home = Path(run) / "eval"
    for study, states in {
        "knn": ("trained", "untrained", "compared"),
        "pca": ("trained",),
        "top1": ("trained",),
    }.items():
        given = {"knn": ("--ks", "5"), "pca": ("--data", scenes, "--sample", "1"), "top1": ()}[study]
        code, printed, _ = skipless(capsys, "eval", run, study, *given)
        assert code == 0
        told = pages_told(printed)
        assert [page.parent.name.split("-")[2] for page in told] == list(states)
        assert all(page.is_file() and page.parent.parent == home for page in told)
    code, printed, _ = skipless(capsys, "eval", run, "knn", "--ks", "5", "--no-baselines")
    assert [page.parent.name.split("-")[2] for page in pages_told(printed)] == ["trained"]
    assert skipless(capsys, "report", str(Path(run).parent))[0] == 0
    index = (Path(run).parent / "index.html").read_text(encoding="utf-8")
    for told in ("top1 on digits, r1: top-1 ", "knn on digits, r1 beside r1, untrained: top-1 "):
        assert told in index


def test_top1_is_kept_and_read_again_and_goes_where_it_is_asked_to(capsys, monkeypatch, run, tmp_path) -> None:
    code, first, _ = skipless(capsys, "eval", run, "--out", str(tmp_path))
    assert code == 0
    (folder,) = tmp_path.iterdir()
    assert {"settings.json", "result.json", "table.md", "index.html"} == {file.name for file in folder.iterdir()}
    line, wrote = first.splitlines()
    assert line.startswith("top1 ")
    assert "  n 400" in line
    assert wrote == f"wrote {folder / 'index.html'}"
    evaluated = []
    real = top1.evaluate_top1
    monkeypatch.setattr("skipless.studies.top1.evaluate_top1", lambda *given: evaluated.append(1) or real(*given))
    assert skipless(capsys, "eval", run, "top1", "--out", str(tmp_path))[1] == first
    assert not evaluated
    (folder / "result.json").write_text('{"settings": {')  # cut off
    assert skipless(capsys, "eval", run, "top1", "--out", str(tmp_path))[1] == first
    assert evaluated == [1]
    text = (folder / "index.html").read_text(encoding="utf-8")
    for part in ("largest class", "Run it again", "<svg", "n = 1"):
        assert part in text


def test_a_data_set_and_a_run_named_by_a_dot_have_their_names(capsys, monkeypatch, run, tmp_path) -> None:
    (tmp_path / "birds" / "train").mkdir(parents=True)
    data = images(tmp_path / "birds")
    for named, folder in ((".", data), ("..", data / "train"), ("../birds", data)):
        monkeypatch.chdir(folder)
        out = str(tmp_path / "out")
        given = ("--data", named, "--ks", "3", "--blocks", "0", "--out", out)
        assert skipless(capsys, "eval", "vit_tiny_patch16_224", "knn", *given)[0] == 0
    assert {path.name.split("-")[1] for path in (tmp_path / "out").iterdir()} == {"birds"}
    monkeypatch.chdir(run)
    for study in ("knn", "top1"):
        code, _, _ = skipless(capsys, "eval", ".", study, "--out", str(tmp_path / study))
        (result, *_) = sorted((tmp_path / study).glob(f"{study}-digits-trained-*/result.json"))
        assert (code, json.loads(result.read_text())["model"]) == (0, "r1")


def test_what_is_done_is_told_in_images_and_nothing_is_counted_where_all_is_there(capsys, run, tmp_path) -> None:
    given = ("eval", run, "knn", "--ks", "5", "--no-baselines", "--out", str(tmp_path))
    first, second = (skipless(capsys, *given)[2].splitlines() for _ in range(2))
    assert first == ["features of digits, train: 1397 of 1397 images", "features of digits, val: 400 of 400 images"]
    assert second == [f"{line} from before" for line in first]


def test_a_timm_name_is_probed_and_drawn(capsys, scenes, tmp_path) -> None:
    out = ["--out", str(tmp_path / "out"), "--blocks", "10", "-1", "--size", "32"]
    name = "vit_tiny_patch16_224"
    code, printed, _ = skipless(
        capsys, "eval", name, "linear-probe", "--data", scenes, "--protocol", "patch", "--epochs", "1", *out
    )
    assert code == 0
    assert "| most frequent class |" in printed
    drawn = set()
    for more in ([], ["--kinds", "k"], []):
        code, printed, _ = skipless(capsys, "eval", name, "pca", "--data", scenes, "--sample", "2", *out, *more)
        assert code == 0
        assert "pca-" in printed
        drawn.add(printed.splitlines()[0].removeprefix("wrote "))
    assert len(drawn) == 2  # other options leave the first picture where it is
    assert all(Path(file).is_file() for file in drawn)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vit_tiny_patch16_224", "tokencut"), "needs --data"),
        (("vit_tiny_patch16_224", "tokencut", "--data", "nowhere"), "'nowhere' is no folder"),
        (("vit_tiny_patch16_224", "knn", "--tau", "0.1"), "--tau is for tokencut, not for knn"),
        (("vit_tiny_patch16_224", "knn"), "knn needs --data"),
        (("no_such_model", "pca", "--data", "."), "timm has no model 'no_such_model'"),
        (("vit_tiny_patch16_224", "top1"), "is no run folder, which top1 needs; for a model, choose knn"),
        (("vit_tiny_patch16_224", "knn", "--data", "digits", "--ks", "5", "5"), "--ks 5 5: give different numbers"),
        (("vit_tiny_patch16_224", "pca", "--data", ".", "--sample", "0"), "--sample 0: give at least 1 image"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments: tuple[str, ...], message: str) -> None:
    code, _, told = skipless(capsys, "eval", *arguments)
    assert code == 2
    assert message in told
    assert "Traceback" not in told


def test_no_model_is_left_out_of_a_picture_for_its_name(capsys, scenes) -> None:
    name = "vit_tiny_patch16_224"
    code, _, told = skipless(capsys, "eval", name, "pca", "--data", scenes, "--versus", name)
    assert (code, "cannot be told apart in a picture" in told) == (2, True)


def test_neighbours_see_images_normalised_as_the_model_wants_them(capsys, monkeypatch, tmp_path) -> None:
    seen = []

    def seeing(model, data, *arguments, **how):
        seen.append(data)
        return nearest_neighbours(model, data, *arguments, **how)

    monkeypatch.setattr("skipless.studies.comparison.compare.nearest_neighbours", seeing)
    given = ("--data", str(images(tmp_path / "data")), "--ks", "3", "--out", str(tmp_path / "out"))
    assert skipless(capsys, "eval", "vit_tiny_patch16_224", "knn", *given)[0] == 0
    (data,) = seen
    pixels = data.val.source.read(0).resize((224, 224))
    assert data.val[0][0].mean() == pytest.approx((np.asarray(pixels).mean() / 255 - 0.5) / 0.5, abs=0.02)
    code, _, told = skipless(capsys, "eval", "vit_tiny_patch16_224", "knn", "--data", "digits")
    assert (code, "takes images of 3 channels, those of 'digits' have 1" in told) == (2, True)


def test_a_folder_of_no_known_layout_names_them(capsys, tmp_path) -> None:
    code, _, told = skipless(capsys, "eval", "vit_tiny_patch16_224", "lost", "--data", str(tmp_path))
    assert code == 2
    for name in ("voc07", "voc12", "coco20k"):
        assert name in told


def test_what_is_wrong_with_the_layout_that_is_there_is_all_that_is_told(capsys, scenes) -> None:
    code, _, told = skipless(capsys, "eval", "vit_tiny_patch16_224", "lost", "--data", scenes, "--sample", "0")
    assert code == 2
    assert told.startswith("skipless: cannot sample 0 of the")
    assert told.count("\n") == 1


def test_what_is_in_a_folder_is_drawn(capsys, scenes, tmp_path) -> None:
    for what in ("sheet", "show-crops"):
        out = tmp_path / f"{what}.png"
        code, printed, _ = skipless(capsys, "data", what, "--data", scenes, "--images", "2", "--out", str(out))
        assert code == 0
        assert f"wrote {out}" in printed
        assert out.stat().st_size > 2000
        code, _, told = skipless(capsys, "data", what, "--data", str(tmp_path / "none"), "--out", str(out))
        assert (code, "a folder that exists" in told) == (2, True)


def test_a_folder_is_packed_into_shards_of_the_size_asked_for(capsys, tmp_path) -> None:
    out = tmp_path / "shards"
    command = ("data", "shards", "--data", str(images(tmp_path / "images")), "--out", str(out))
    code, _, told = skipless(capsys, *command, "--images", "0")
    assert (code, "at least 1" in told) == (2, True)
    code, printed, _ = skipless(capsys, *command, "--images", "6")
    assert code == 0
    assert "16 train images in 3, 8 val images in 2 shards, 2 classes" in printed
    assert len(list(out.glob("*.tar"))) == 5
    code, _, told = skipless(capsys, *command)
    assert (code, "holds shards already" in told) == (2, True)


def test_scenes_are_drawn_as_asked(capsys, tmp_path) -> None:
    sizes = ["--train", "2", "--val", "1", "--size", "32", "--smallest", "0.7", "--largest", "0.9"]
    asked = [*sizes, "--objects", "digits", "--colours", "class", "--out", str(tmp_path / "large")]
    code, _, _ = skipless(capsys, "data", "scenes", *asked)
    assert code == 0
    plan = json.loads((tmp_path / "large/scenes.json").read_text())
    assert (plan["smallest"], plan["largest"], plan["colours"]) == (0.7, 0.9, "class")
