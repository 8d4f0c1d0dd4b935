"""`skipless eval SOURCE language`: runs and checkpoints, on held-out text and at zero-shot tasks."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from reference.checkpoints import write_checkpoint
from reference.command import skipless
from reference.tiny_language import write_lines
from reference.zero_shot import ROWS, by_hand, write_copies

from skipless.data.text import TextConfig, load_text
from skipless.evaluators import score_text, text_floors
from skipless.evaluators.language.zero_shot.tasks import ZERO_SHOT_TASKS
from skipless.models import from_pretrained, load_tokenizer
from skipless.recipes import open_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skipless.experiments.language.recipe import language

    home = tmp_path_factory.mktemp("runs")
    recipe = language(data=str(write_lines(home / "data")), depth=1).with_(
        data__tokenizer="bytes", data__documents="line", data__context=64, fit__workers=0, fit__steps=3,
        fit__batch_size=4, fit__progress="none",
    )  # fmt: skip
    recipe.run(home / "l1")
    return home / "l1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "llama")


def results(home: Path, stem: str) -> dict:
    (file,) = home.glob(f"{stem}-*/result.json")
    return json.loads(file.read_text())


def test_a_run_on_its_own_held_out_text(run: Path, tmp_path: Path, capsys) -> None:
    words = ["eval", str(run), "language", "--sample-tokens", "8", "--out", str(tmp_path)]
    code, out, err = skipless(capsys, *words)
    assert code == 0, err
    source = open_model(str(run))
    text = load_text(source.recipe.data)
    expected = score_text(source.model, text.val, context=64)
    found = results(tmp_path, "language")
    assert found["score"]["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    floors = text_floors(text.train, text.val, vocabulary=257)
    assert found["floors"]["bigram_bits"] == pytest.approx(floors.bigram_bits)
    assert len(found["sample"]["ids"]) <= 8
    for said in ("| l1 |", "| bigram counts |", "| unigram counts |", "bits per byte", "| text |"):
        assert said in out
    page = next(tmp_path.glob("*/index.html")).read_text()
    assert "Held-out text: l1" in page
    (file,) = tmp_path.glob("*/result.json")
    before = file.stat().st_mtime_ns, out
    shutil.rmtree(run / "eval", ignore_errors=True)
    assert skipless(capsys, *words)[1] == out
    assert before[1] == out


def test_a_run_on_another_text_by_its_own_tokenizer(run: Path, tmp_path: Path, capsys) -> None:
    code, _, err = skipless(
        capsys, "eval", str(run), "language", "--data", "pydoc", "--held-out", "500", "--out", str(tmp_path)
    )
    assert code == 0, err
    text = load_text(TextConfig("pydoc", "bytes", 64))
    expected = score_text(open_model(str(run)).model, text.val, context=64, most=500)
    assert results(tmp_path, "language-pydoc")["score"]["loss"] == pytest.approx(expected.loss, rel=1e-5)


def test_a_checkpoint_by_its_path(checkpoint: Path, cache: None, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_lines(tmp_path / "data")
    words = ["--data", str(file), "--documents", "line", "--context", "32", "--sample-tokens", "4"]
    code, _, err = skipless(capsys, "eval", str(checkpoint), "language", *words)
    assert code == 0, err
    text = load_text(TextConfig(str(file), str(checkpoint), 32, documents="line"))
    assert text.end == 2
    expected = score_text(from_pretrained(checkpoint), text.val, context=32)
    found = results(tmp_path / "eval/llama", "language")
    assert found["score"]["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-5)
    skipless_one = from_pretrained(checkpoint, sub_blocks=("attn", "mlp"))
    skipless_one.save_pretrained(tmp_path / "converted", max_shard_size="30KB")
    load_tokenizer(checkpoint).save_pretrained(tmp_path / "converted")
    code, _, err = skipless(capsys, "eval", f"hf:{tmp_path / 'converted'}", "language", *words)
    assert code == 0, err
    without = score_text(skipless_one, text.val, context=32)
    found = results(tmp_path / "eval/converted", "language")
    assert found["score"]["bits_per_byte"] == pytest.approx(without.bits_per_byte, rel=1e-5)
    assert without.bits_per_byte != pytest.approx(expected.bits_per_byte, rel=1e-5)


@pytest.mark.slow
def test_a_checkpoint_at_zero_shot_tasks_agrees_with_scores_by_hand(
    checkpoint: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_copies(tmp_path / "tasks")
    words = ["eval", str(checkpoint), "language", "--tasks", ",".join(ROWS), "--data-dir", str(data)]
    code, out, err = skipless(capsys, *words)
    assert code == 0, err
    model, tokenizer = from_pretrained(checkpoint).eval(), load_tokenizer(checkpoint)
    found = results(tmp_path / "eval/llama", "zero-shot")
    for score in found["scores"]:
        accuracy, _ = by_hand(
            model, lambda text: tokenizer.encode(text, add_special_tokens=False), score["task"], [1], 128
        )
        assert score["accuracy"] == pytest.approx(accuracy)
    assert [score["task"] for score in found["scores"]] == list(ZERO_SHOT_TASKS)
    for task in ZERO_SHOT_TASKS.values():
        assert f"| {task.title} |" in out
    assert "| mean |" in out
    assert "paper" not in out  # of five questions
    monkeypatch.setattr("skipless.studies.language.zero_shot.score_tasks", None)  # what is done is kept
    assert skipless(capsys, *words)[1] == out


@pytest.mark.slow
def test_a_run_at_zero_shot_tasks_beside_the_paper_where_all_questions_are_asked(
    run: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("skipless.experiments.language.paper.QUESTIONS", dict.fromkeys(ZERO_SHOT_TASKS, 5))
    data = write_copies(tmp_path / "tasks", "parquet")
    words = ["eval", str(run), "language", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    code, out, err = skipless(capsys, *words, "--tasks", "piqa", "boolq")
    assert code == 0, err
    assert "| task | accuracy | by length | n | chance | largest answer | paper, skip | paper, skipless + init |" in out
    assert "| 5 | 50.0 | 60.0 | 57.3 | 61.2 |" in out
    assert "Table 7, Llama of 110 M parameters" in out
    code, out, err = skipless(capsys, *words, "--tasks", "piqa,boolq", "--limit", "3")
    assert "paper" not in out
    model = open_model(str(run)).model
    accuracy, _ = by_hand(model, lambda text: list(text.encode()), "piqa", [256], 64)
    found = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("zero-shot-*/result.json")]
    whole = next(one for one in found if one["limit"] is None)
    assert whole["scores"][1]["accuracy"] == pytest.approx(accuracy)


def test_what_it_cannot_do_is_told_in_a_line(run: Path, checkpoint: Path, tmp_path: Path, capsys) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint, bare)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    small = write_checkpoint(tmp_path / "small", vocabulary=200)
    lacking = Path(shutil.copytree(checkpoint, tmp_path / "lacking"))
    sorted(lacking.glob("model-*"))[0].unlink()
    tasks = str(write_copies(tmp_path / "tasks"))
    text = ["--data", "pydoc"]
    cases = [
        ([str(checkpoint)], "does not say on which text it is to be measured: give --data"),
        ([str(bare), *text], "has no tokenizer.json: give --tokenizer, or copy that of the model's own folder"),
        ([str(bare), "--tasks", "piqa", "--data-dir", tasks], "has no tokenizer (tokenizer.json)"),
        ([str(small), *text], "has 259 ids, the model 200: it is another model's"),
        ([str(small), "--tasks", "piqa", "--data-dir", tasks], "has 259 ids, the model 200: it is another"),
        ([str(lacking), *text], "lacks the shard model-00001-of-"),
        ([str(run), "--tasks", "piqua"], "no task 'piqua'; did you mean piqa?"),
        (
            [str(run), "--tasks", "piqa", "--data-dir", str(tmp_path / "none")],
            "is no folder: local copies of the tasks",
        ),
        ([str(run), "--tasks", "piqa", "--stride", "4"], "--stride changes nothing of zero-shot tasks"),
        ([str(run), "--documents", "line"], "--documents line is for another text than the run's own: give --data"),
        ([str(run), "--context", "1000"], "--context 1000: the model has places for"),
        ([str(run), "--held-out", "0"], "--held-out 0: give 1 or more"),
        ([str(run), "--temperature", "-1"], "--temperature -1.0: give 0 or more"),
        ([str(run), "--limit", "4"], "--limit changes nothing of held-out text"),
        ([str(run), "--data-dir", tasks], "--data-dir changes nothing of held-out text"),
        ([str(run), "--tokenizer", str(checkpoint)], "was trained with another tokenizer than"),
        (["vit_tiny_patch16_224"], "no folder 'vit_tiny_patch16_224': give a run of `skipless train language`"),
    ]
    for words, message in cases:
        code, _, err = skipless(capsys, "eval", words[0], "language", *words[1:], "--out", str(tmp_path / "out"))
        last = err.splitlines()[-1]
        assert code == 2, words
        assert message in last, (words, err)


def test_evaluations_of_images_name_this_one(run: Path, checkpoint: Path, capsys) -> None:
    for words in (
        ["eval", str(run)],
        ["eval", str(run), "knn", "--data", "digits"],
        ["eval", str(checkpoint), "knn", "--data", "digits"],
    ):
        code, _, err = skipless(capsys, *words)
        assert code == 2
        assert "is a model of text" in err.splitlines()[-1]
        assert f"skipless eval {words[1]} language" in err.splitlines()[-1]


def test_a_run_is_measured_at_its_held_out_text(run: Path, tmp_path: Path, capsys) -> None:
    code, out, err = skipless(
        capsys, "measure", str(run), "--tokens", "8", "--images", "2", "--out", str(tmp_path), "--dtype", "float64"
    )
    assert code == 0, err
    assert "2 held-out texts of 8 tokens of sentences.txt" in out
    found = json.loads((tmp_path / "conditioning.json").read_text())
    assert (found["images"], found["kind"], found["dtype"]) == (2, "text", "float64")
    from skipless import measure_conditioning

    source = open_model(str(run))
    val = load_text(source.recipe.data).val
    ids = torch.stack([torch.from_numpy(val.ids[at : at + 8].astype("int64")) for at in (0, 8)])
    expected = measure_conditioning(source.model.double(), inputs=ids, parts=["attn"], forms="own")
    kappa = found["blocks"][0]["attn"]["skipless"]["kappa"]["value"]
    assert kappa == pytest.approx(expected.blocks[0].attn["skipless"].kappa.value, rel=1e-3)


def test_a_checkpoint_is_measured_at_a_text_or_at_drawn_ids(checkpoint: Path, cache: None, capsys) -> None:
    code, out, err = skipless(capsys, "measure", str(checkpoint), "--tokens", "6", "--blocks", "0")
    assert code == 0, err
    assert "1 text of 6 random token ids" in out
    code, out, err = skipless(capsys, "measure", str(checkpoint), "--tokens", "6", "--blocks", "0", "--data", "pydoc")
    assert code == 0, err
    assert "1 held-out text of 6 tokens of pydoc" in out


def test_a_language_run_opens_as_a_model(run: Path) -> None:
    source = open_model(str(run))
    assert (source.name, source.trained, source.context, source.image_size) == ("l1", True, 64, None)
    untrained = open_model(str(run), untrained=True)
    fresh = source.recipe.model.build_language(257, 64, source.recipe.fit.seed)
    for name, value in fresh.state_dict().items():
        assert torch.equal(untrained.model.state_dict()[name], value)
    assert not torch.equal(untrained.model.model.embed_tokens.weight, source.model.model.embed_tokens.weight)


def test_an_exported_run_is_the_same_model_by_transformers(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "models/llama"
    code, printed, err = skipless(capsys, "export", str(run), "--out", str(out))
    assert code == 0, err
    assert "from_pretrained" in printed
    model, tokenizer = from_pretrained(out), load_tokenizer(out)
    ids = tokenizer("the cat", return_tensors="pt").input_ids
    assert ids[0].tolist() == [256, *b"the cat"]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, open_model(str(run)).model(ids).logits)
    assert model.config.eos_token_id == 256
    code, _, err = skipless(capsys, "export", str(run), "--out", str(out))
    assert (code, "is there already" in err) == (2, True)
    code, _, err = skipless(capsys, "export", str(run), "--out", str(tmp_path / "x"), "--epoch", "1")
    assert (code, "--epoch 1 is for teachers of DINO" in err) == (2, True)
    words = ["--data", "pydoc", "--held-out", "300", "--context", "64", "--sample-tokens", "4"]
    for source in (run, out):
        code, _, err = skipless(capsys, "eval", str(source), "language", *words, "--out", str(tmp_path / source.name))
        assert code == 0, err
    one, other = (results(tmp_path / source.name, "language-pydoc")["score"]["loss"] for source in (run, out))
    assert one == pytest.approx(other, rel=1e-5)
