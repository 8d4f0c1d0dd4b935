"""Held-out text against twins that go token by token, in float64; floors from dictionaries of counts."""

import functools
import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults.ranks import run_apart
from reference.text_files import DOCUMENTS, write_lines_file, write_tokenizer
from reference.tiny_language import Deaf, TinyCausal, Wrapped
from torch import Tensor, nn

from skipless.data.text import ByteTokenizer, TextConfig, TextData, TextSplit, prepare_text
from skipless.errors import InputError
from skipless.evaluators import sample_text, score_text, text_floors

CONTEXT = 10


def prepare(folder: Path, tokenizer: str | None = None) -> TextData:
    file = write_lines_file(folder / "a.jsonl")
    return prepare_text(TextConfig(str(file), tokenizer, validation=0.3), folder / "out")


@pytest.fixture
def text(tmp_path: Path) -> TextData:
    return prepare(tmp_path)


def model(vocabulary: int = 257) -> TinyCausal:
    return TinyCausal(vocabulary, CONTEXT, seed=2).double()


def naive(
    model: nn.Module, split: TextSplit, stride: int, documents: int | None = None
) -> tuple[dict[int, list[float]], float]:
    """The loss of each predicted token alone, by the number of tokens that the model saw; and of ends, added up."""
    stream = split.ids[: split.starts[split.documents if documents is None else documents]].tolist()
    model.eval()
    losses: dict[int, list[float]] = {}
    ends = 0.0
    for target in range(1, len(stream)):
        window = 0 if target <= CONTEXT else -(-(target - CONTEXT) // stride)
        seen = stream[window * stride : target]
        loss = -model(torch.tensor([seen]))[0, -1].log_softmax(-1)[stream[target]].item()
        losses.setdefault(len(seen), []).append(loss)
        ends += loss * (stream[target] == stream[0])
    return losses, ends


@pytest.mark.parametrize("stride", [CONTEXT, 3, 1])
@pytest.mark.parametrize("batch", [1, 7])
def test_scores_are_those_of_a_token_at_a_time(text: TextData, stride: int, batch: int) -> None:
    trained = model().train()
    score = score_text(trained, text.val, context=CONTEXT, stride=stride, batch_size=batch)
    assert trained.training
    losses, ends = naive(trained, text.val, stride)
    all_losses = [loss for group in losses.values() for loss in group]
    assert score.tokens == len(all_losses) == text.val.tokens - 1
    assert score.loss == pytest.approx(math.fsum(all_losses) / len(all_losses), abs=1e-10)
    size = sum(len(part.encode()) for part in DOCUMENTS) - text.train.bytes
    assert score.bytes == size == text.val.bytes
    assert score.bits_per_byte == pytest.approx((math.fsum(all_losses) - ends) / math.log(2) / size, abs=1e-10)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    for position, value in enumerate(score.by_position):
        group = losses.get(position + 1)
        assert value == (None if group is None else pytest.approx(math.fsum(group) / len(group), abs=1e-10))


def test_a_part_is_whole_documents(text: TextData) -> None:
    score = score_text(model(), text.val, context=CONTEXT, most=int(text.val.starts[2]))
    assert score.documents == 2
    losses, _ = naive(model(), text.val, CONTEXT, documents=2)
    assert score.tokens == sum(map(len, losses.values()))
    assert score.bytes == text.val.byte_counts[:2].sum()
    assert score_text(model(), text.val, context=CONTEXT, most=1).documents == 1
    assert score_text(model(), text.val, context=CONTEXT, most=10**9).documents == text.val.documents


def test_what_comes_after_a_part_is_the_other_documents(text: TextData, unchecked) -> None:
    """A part of two documents and what is behind it: together the whole, and each as a split of its own."""
    val = text.val
    lengths = np.diff(val.starts).tolist()
    most = int(val.starts[1]) + 1  # the first two documents are begun within so many tokens
    first = score_text(model(), val, context=CONTEXT, most=most)
    rest = score_text(model(), val, context=CONTEXT, after=most)
    assert (first.documents, rest.documents) == (2, len(lengths) - 2)
    assert (first.tokens, rest.tokens) == (sum(lengths[:2]), sum(lengths[2:]))
    begin = int(val.starts[2]) - 1
    alone = SimpleNamespace(ids=val.ids[begin:], starts=val.starts[2:] - begin, byte_counts=val.byte_counts[2:])
    assert vars(rest) == vars(score_text(model(), alone, context=CONTEXT))
    next_one = score_text(model(), val, context=CONTEXT, after=most, most=1)
    assert (next_one.documents, next_one.tokens) == (1, lengths[2])
    with pytest.raises(InputError, match="no document begins: the held-out text has"):
        score_text(model(), val, context=CONTEXT, after=val.tokens)


def test_a_uniform_model_has_the_bits_of_its_vocabulary_by_any_tokenizer(text: TextData, tmp_path: Path) -> None:
    bpe = prepare(tmp_path / "bpe", str(write_tokenizer(tmp_path / "t/tokenizer.json")))
    for data in (text, bpe):
        score = score_text(Deaf(data.vocabulary), data.val, context=CONTEXT)
        tokens = data.val.tokens - 1 - data.val.documents  # ends have no bytes
        assert score.loss == pytest.approx(math.log(data.vocabulary))
        assert score.bits_per_byte == pytest.approx(math.log2(data.vocabulary) * tokens / data.val.bytes)


def test_an_object_with_logits_and_half_precision_do(text: TextData) -> None:
    plain = score_text(model(), text.val, context=CONTEXT)
    assert score_text(Wrapped(model()), text.val, context=CONTEXT).loss == plain.loss
    with torch.autocast("cpu", torch.bfloat16):
        half = score_text(model().float(), text.val, context=CONTEXT)
    assert half.loss == pytest.approx(plain.loss, rel=0.01)


def test_ranges_of_positions_double(text: TextData) -> None:
    score = score_text(model(), text.val, context=CONTEXT)
    assert [(low, high) for low, high, _ in score.ranges()] == [(0, 1), (1, 2), (2, 4), (4, 8), (8, 10)]
    with pytest.raises(InputError, match="stride 11: give 1 to the context, 10"):
        score_text(model(), text.val, context=CONTEXT, stride=11)


def _score_on_a_rank(folder: Path, rank: int) -> None:
    import torch.distributed as dist

    from skipless.data.text import open_text

    dist.init_process_group("gloo")
    score = score_text(model(), open_text(folder / "out").val, context=CONTEXT, batch_size=2)
    (folder / f"{rank}.json").write_text(
        json.dumps([score.loss, score.bits_per_byte, score.tokens, *score.by_position])
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_share_the_windows(text: TextData, tmp_path: Path) -> None:
    run_apart(2, functools.partial(_score_on_a_rank, tmp_path), tmp_path / "log")
    score = score_text(model(), text.val, context=CONTEXT)
    expected = [score.loss, score.bits_per_byte, score.tokens, *score.by_position]
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("most", [None, 200])
def test_floors_are_those_of_counts(text: TextData, most: int | None) -> None:
    floors = text_floors(text.train, text.val, vocabulary=257, **({} if most is None else {"most": most}))
    train, val = text.train.ids[:most].tolist(), text.val.ids.tolist()
    single, pairs, before = Counter(train[1:]), Counter(pairwise(train)), Counter(train[:-1])
    kinds = Counter(a for a, _ in pairs)
    unigram, bigram, texts = [], [], []
    for a, b in pairwise(val):
        p = (single[b] + 1) / (len(train) - 1 + 257)
        q = (pairs[a, b] + kinds[a] * p) / (before[a] + kinds[a]) if before[a] else p
        unigram.append(-math.log(p))
        bigram.append(-math.log(q))
        texts.append(b != 256)
    assert floors.unigram == pytest.approx(math.fsum(unigram) / len(unigram), rel=1e-12)
    assert floors.bigram == pytest.approx(math.fsum(bigram) / len(bigram), rel=1e-12)
    for found, values in ((floors.unigram_bits, unigram), (floors.bigram_bits, bigram)):
        own = math.fsum(value for value, kept in zip(values, texts, strict=True) if kept)
        assert found == pytest.approx(own / math.log(2) / text.val.bytes, rel=1e-12)
    assert floors.entropy == pytest.approx(text.val.unigram_entropy)
    assert floors.train_tokens == len(train) - 1


def test_smoothed_pairs_are_probabilities(text: TextData) -> None:
    """The bigram's probabilities of all tokens add up to one after any token, so that it is a model."""
    train = text.train.ids.tolist()
    single, pairs, before = Counter(train[1:]), Counter(pairwise(train)), Counter(train[:-1])
    kinds = Counter(a for a, _ in pairs)
    for a in before:
        p = [(single[b] + 1) / (len(train) - 1 + 257) for b in range(257)]
        assert math.fsum((pairs[a, b] + kinds[a] * p[b]) / (before[a] + kinds[a]) for b in range(257)) == pytest.approx(
            1
        )


class Counting(nn.Module):
    """Predicts the next letter of the alphabet for sure, and an end after z."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0

    def forward(self, ids: Tensor) -> Tensor:
        self.longest = max(self.longest, ids.shape[1])
        following = torch.where(ids == ord("z"), 256, torch.where(ids >= 256, ord("a"), ids + 1))
        return 100.0 * nn.functional.one_hot(following, 257)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_sample_goes_on_until_the_document_ends(temperature: float) -> None:
    counting = Counting().train()
    sample = sample_text(counting, ByteTokenizer(), "tu", tokens=20, context=4, temperature=temperature)
    assert (sample.text, sample.ids[-1]) == ("vwxyz", 256)
    assert counting.longest == 4
    assert counting.training
    assert sample_text(counting, ByteTokenizer(), tokens=3, context=4).text == "abc"


def test_a_sample_is_a_function_of_its_seed() -> None:
    texts = [sample_text(model(), ByteTokenizer(), "a", tokens=8, context=CONTEXT, seed=seed).ids for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    state = torch.get_rng_state()
    sample_text(model(), ByteTokenizer(), tokens=2, context=CONTEXT)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_generates_is_asked_to(tmp_path: Path) -> None:
    calls = []

    class Generating(Counting):
        def generate(self, ids: Tensor, *, max_new_tokens: int, **options: object) -> Tensor:
            calls.append(options)
            torch.rand(1)
            for _ in range(max_new_tokens):
                ids = torch.cat([ids, self(ids)[:, -1:].argmax(-1)], dim=1)
            return ids

    state = torch.get_rng_state()
    asked = sample_text(Generating(), ByteTokenizer(), "a", tokens=3, context=8, temperature=0.5)
    assert asked.text == "bcd"
    assert torch.equal(torch.get_rng_state(), state)
    assert calls[0]["do_sample"] is True
    assert (calls[0]["temperature"], calls[0]["eos_token_id"]) == (0.5, 256)
    assert sample_text(Generating(), ByteTokenizer(), "a", tokens=30, context=8, temperature=0).text.endswith("yz")
    assert len(calls) == 1  # too long for the context: a window at a time


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"temperature": -1.0}, {"context": 0}])
def test_samples_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="give 1 or more"):
        sample_text(Counting(), ByteTokenizer(), **{"tokens": 2, "context": 4, **wrong})  # pyright: ignore
