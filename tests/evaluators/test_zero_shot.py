"""Zero-shot tasks: the harness agrees with scores by hand, on small local copies in each task's real schema."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from reference.zero_shot import ROWS, by_hand, write_copies

from skipless.data.text import ByteTokenizer, FileTokenizer
from skipless.errors import InputError
from skipless.evaluators import score_tasks
from skipless.evaluators.language.zero_shot.local_files import task_files
from skipless.models import create_hf_model
from skipless.models.libraries.hf_tokenizer import fast_tokenizer

# What the harness and `datasets` warn of themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TASKS = tuple(ROWS)
SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 257,
}  # fmt: skip


def causal(**changes: Any) -> torch.nn.Module:
    model = create_hf_model("LlamaForCausalLM", seed=1, **{**SIZES, "max_position_embeddings": 256, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def of_bytes(text: str) -> list[int]:
    return list(text.encode())


@pytest.mark.slow
@pytest.mark.parametrize("context", [256, 52])
def test_scores_are_those_of_log_likelihoods_by_hand(context: int, tmp_path: Path) -> None:
    model = causal().train()
    found = score_tasks(model, ByteTokenizer(), data=write_copies(tmp_path), context=context)
    assert model.training
    assert found.begins
    model.eval()
    for name in TASKS:
        accuracy, by_length = by_hand(model, of_bytes, name, [256], context)
        score = found[name]
        assert score.accuracy == pytest.approx(accuracy)
        p = accuracy / 100
        assert score.error == pytest.approx(100 * (p * (1 - p) / (score.n - 1)) ** 0.5)
        assert score.n == 5
        if name in ("hellaswag", "piqa"):
            assert score.normalized == pytest.approx(by_length)
        else:
            assert score.normalized is None
    assert [found[name].majority for name in TASKS] == [60, 40, 60, 80, 40]
    assert [found[name].chance for name in TASKS] == pytest.approx([50, 25, 50, 50, 100 / 3])
    assert "largest answer" in str(found)
    assert ("! BoolQ: 100 % of the answers had questions too long" in str(found)) == (context == 52)


def word_tokenizer(folder: Path) -> Path:
    """A folder with the tokenizer of a Llama-type model, made of the tasks' own words: pieces of bytes, and `<s>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([json.dumps(rows) for rows in ROWS.values()], trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("begins", "begin"), [(None, [0]), (False, [])])
def test_a_model_with_its_own_tokenizer_keeps_what_that_does(
    begins: bool | None, begin: list[int], tmp_path: Path
) -> None:
    model = causal(vocab_size=360).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(word_tokenizer(tmp_path / "tokenizer"))
    data = write_copies(tmp_path / "data", "parquet")
    found = score_tasks(model, tokenizer, data=data, begins=begins)
    assert found.begins == (begins is None)
    for name in TASKS:
        accuracy, _ = by_hand(model, lambda text: tokenizer.encode(text, add_special_tokens=False), name, begin, 256)
        assert found[name].accuracy == pytest.approx(accuracy)


@pytest.mark.slow
def test_a_tokenizer_file_puts_an_end_before_a_text(tmp_path: Path) -> None:
    tokenizer = FileTokenizer(word_tokenizer(tmp_path / "tokenizer") / "tokenizer.json")
    model = causal(vocab_size=360).eval()
    found = score_tasks(model, tokenizer, ["piqa", "boolq"], data=write_copies(tmp_path / "data"))
    assert [score.task for score in found.scores] == ["boolq", "piqa"]
    for name in ("boolq", "piqa"):
        accuracy, _ = by_hand(model, lambda text: tokenizer.encode([text])[0].tolist(), name, [1], 256)
        assert found[name].accuracy == pytest.approx(accuracy)
    first = score_tasks(model, tokenizer, ["piqa"], data=tmp_path / "data", limit=2)
    assert (first["piqa"].n, first["piqa"].majority) == (2, 100)
    assert "the first 2 questions" in str(first)


def test_the_tokenizers_of_transformers_give_the_ids_of_ours(tmp_path: Path) -> None:
    text = "Ich über <|endoftext|> \n 東京 </s> \x00 \U0001f600  end "
    assert fast_tokenizer()(text).input_ids == [256, *text.encode()]
    assert fast_tokenizer().decode(list(text.encode())) == text
    file = word_tokenizer(tmp_path) / "tokenizer.json"
    ours = FileTokenizer(file)
    assert fast_tokenizer(file, ours.end_token)(text).input_ids == [ours.end, *ours.encode([text])[0].tolist()]
    assert 1 not in ours.encode([text])[0]


@pytest.mark.slow
def test_other_forms_of_the_same_data(tmp_path: Path) -> None:
    """SuperGLUE's own files have truth values; a snapshot of the hub has its repository's folders; one file may do."""
    model = causal()
    expected = score_tasks(model, ByteTokenizer(), ["boolq", "winogrande"], data=write_copies(tmp_path / "plain"))
    other = tmp_path / "other"
    (other / "super_glue/boolq").mkdir(parents=True)
    rows = [{**row, "label": bool(row["label"])} for row in ROWS["boolq"]]
    (other / "super_glue/boolq/val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (other / "super_glue/boolq/train.jsonl").write_text("not read")
    (other / "super_glue/cb").mkdir()
    (other / "super_glue/cb/val.jsonl").write_text("not read")
    (other / "winogrande.jsonl").write_text("\n".join(map(json.dumps, ROWS["winogrande"])))
    found = score_tasks(model, ByteTokenizer(), ["boolq", "winogrande"], data=other)
    assert [repr(score) for score in found.scores] == [repr(score) for score in expected.scores]


def _spoil(folder: Path, name: str, content: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "validation.jsonl").write_text(content)


HIDDEN = json.dumps({**ROWS["piqa"][0], "label": -1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"goal": "a", "sol1": "b", "sol2": "c"}', "has no field label: it is no data of piqa, which has goal, sol1"),
        (HIDDEN, "has a label -1, not one of 0, 1: a test split hides its answers"),
        ("{not json", "the data of piqa cannot be read"),
        ("", "the data of piqa cannot be read"),
    ],
)
def test_data_of_another_form_is_told(content: str, message: str, tmp_path: Path) -> None:
    _spoil(tmp_path, "piqa", content)
    with pytest.raises(InputError) as told:
        score_tasks(causal(), ByteTokenizer(), ["piqa"], data=tmp_path)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_shards_that_lack_one_are_told(tmp_path: Path) -> None:
    for number in (0, 2):
        place = tmp_path / "piqa" / f"validation-0000{number}-of-00003.parquet"
        place.parent.mkdir(exist_ok=True)
        place.touch()
    with pytest.raises(InputError, match="lacks shard 1 of the 3 that the data of piqa has"):
        task_files("piqa", tmp_path)
    (tmp_path / "piqa/validation-00001-of-00003.parquet").touch()
    assert [file.name[11:16] for file in task_files("piqa", tmp_path)[1]] == ["00000", "00001", "00002"]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    model, ours = causal(), ByteTokenizer()
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"no task 'hellaswg'; did you mean hellaswag\?"):
        score_tasks(model, ours, ["hellaswg"])
    with pytest.raises(InputError, match=r"is no folder: local copies"):
        score_tasks(model, ours, data=tmp_path / "nowhere")
    with pytest.raises(
        InputError, match=r"no data of boolq in .*wanted is .*boolq/validation.jsonl .*question, passage"
    ):
        score_tasks(model, ours, data=tmp_path / "data")
    with pytest.raises(InputError, match="limit 0"):
        score_tasks(model, ours, limit=0)
    _spoil(tmp_path / "data", "piqa", HIDDEN)
    (tmp_path / "data/piqa/valid.jsonl").write_text(HIDDEN)
    with pytest.raises(InputError, match="more than once"):
        score_tasks(model, ours, ["piqa"], data=tmp_path / "data")
    with pytest.raises(InputError, match="takes transformers' models, and `Linear` is none"):
        score_tasks(torch.nn.Linear(2, 2), ours, ["winogrande"], data=write_copies(tmp_path / "whole"))


@pytest.mark.slow
def test_tokenizers_of_other_models_and_answers_without_room_are_told(tmp_path: Path) -> None:
    data = write_copies(tmp_path / "data")
    with pytest.raises(InputError, match="has 257 ids, the model 100: it is another"):
        score_tasks(causal(vocab_size=100), ByteTokenizer(), data=data)
    with pytest.raises(InputError, match="an answer has 51 tokens, the model's context 40"):
        score_tasks(causal(), ByteTokenizer(), ["hellaswag"], data=data, context=40)


def test_without_lm_eval_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("skipless.evaluators.language.zero_shot.score_tasks.is_installed", lambda _: False)
    with pytest.raises(InputError, match=r"pip install 'lm-eval\[hf\]>=0.4.13,<0.5'"):
        score_tasks(causal(), ByteTokenizer(), data=tmp_path)
