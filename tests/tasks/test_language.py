"""Next-token prediction against a twin that one would write, and the monitor of models that learn nothing."""

import math
from typing import Any

import pytest
import torch
from reference.tiny_language import Deaf, TinyCausal, Wrapped
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models import next_token_logits
from skipless.tasks import LanguageConfig, LanguageModel
from skipless.tasks.language import IGNORE, REMEDY, chunked_cross_entropy

V, T = 11, 7


def naive(model: nn.Module, tokens: Tensor) -> Tensor:
    """The mean over pairs of a token and the one after it, one by one, in float64."""
    losses = []
    for row in tokens:
        for t in range(len(row) - 1):
            if row[t] < 0 or row[t + 1] < 0:
                continue
            p = model(row[None, : t + 1].clamp_min(0))[0, -1].double().softmax(-1)
            losses.append(-p[row[t + 1]].log())
    return torch.stack(losses).mean()


def tiny() -> TinyCausal:
    return TinyCausal(V, T, seed=1).double().eval()


@pytest.mark.parametrize("chunk", [1, 4, 5, 1000])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_loss_and_gradients_are_those_of_the_naive_twin(chunk: int, padded: bool, wrapped: bool) -> None:
    tokens = torch.randint(0, V, (3, T + 1), generator=torch.Generator().manual_seed(0))
    if padded:
        tokens[0, 5:], tokens[2, 2:] = IGNORE, IGNORE
    model, twin = tiny(), tiny()
    task = LanguageModel(Wrapped(model) if wrapped else model, LanguageConfig(loss_chunk=chunk))
    loss, expected = task(tokens)["loss"], naive(twin, tokens)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
    loss.backward()
    expected.backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-12, rtol=1e-9)


def test_no_more_than_a_chunk_is_in_full_precision_at_once() -> None:
    largest: list[int] = []

    class Watching(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            if isinstance(found, Tensor) and found.dtype == torch.float32:
                largest.append(found.numel())
            return found

    logits = torch.randn(2, 32, 50, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, 50, (2, 32))
    with Watching():
        loss = chunked_cross_entropy(logits, targets, chunk=8)
    loss.backward()
    assert max(largest) == 8 * 50
    assert loss.dtype == torch.float32
    whole = logits.detach().float().requires_grad_()
    expected = torch.nn.functional.cross_entropy(whole.flatten(0, 1), targets.flatten())
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, whole.grad.bfloat16(), atol=1e-4, rtol=1e-2)  # pyright: ignore


def test_bits_per_byte_are_the_loss_by_the_bytes_of_a_token() -> None:
    tokens = torch.randint(0, V, (2, T + 1))
    output = LanguageModel(tiny(), bytes_per_token=3.5)(tokens)
    assert output["bits_per_byte"].item() == pytest.approx(output["loss"].item() / math.log(2) / 3.5)
    assert not output["bits_per_byte"].requires_grad


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Embedding(V, 4), nn.Flatten()), r"returned \(2, 28\) for ids \(2, 7\), not logits"),
        (nn.Sequential(nn.Embedding(V, 4), nn.AvgPool1d(2)), None),
    ],
)
def test_what_predicts_no_tokens_is_refused(model: nn.Module, message: str | None) -> None:
    ids = torch.zeros(2, T, dtype=torch.int64)
    if message is None:
        assert next_token_logits(model, ids).shape == (2, T, 2)
        return
    with pytest.raises(InputError, match=message):
        LanguageModel(model)(torch.zeros(2, T + 1, dtype=torch.int64))
    with pytest.raises(InputError, match="windows of 1 token"):
        LanguageModel(model)(torch.zeros(2, 1, dtype=torch.int64))


def test_a_cache_is_not_asked_for() -> None:
    asked = []

    class Cached(TinyCausal):
        config = type("Config", (), {"use_cache": True})()

        def forward(self, ids: Tensor, **options: Any) -> Tensor:
            asked.append(options)
            return super().forward(ids)

    LanguageModel(Cached(V, T))(torch.zeros(1, T, dtype=torch.int64))
    assert asked == [{"use_cache": False}]


def watch(losses: list[float], **options: Any) -> list[Any]:
    """What the monitor says of steps with these losses, two micro-batches each."""
    names = {name: options.pop(name) for name in ("watch_every", "watch_after", "on_stuck") if name in options}
    task = LanguageModel(Deaf(V), LanguageConfig(**names), unigram_entropy=2.0, **options)
    optimizer, found = torch.optim.SGD(task.parameters()), []
    for step, loss in enumerate(losses):
        task.before_step(step, optimizer)
        task._losses += [torch.tensor(loss - 0.1), torch.tensor(loss + 0.1)]
        found.append(task.after_step(step))
    return found


def test_the_monitor_looks_at_the_mean_of_many_steps() -> None:
    found = watch([2.0] * 4 + [1.5, 2.4, 2.0, 2.0] + [1.0] * 4, watch_every=4, watch_after=5)
    assert [found is not None for found in found] == [False, False, False, True] * 3
    assert found[3] == {"loss": pytest.approx(2.0), "unigram_entropy": 2.0}  # too early to judge
    assert found[7]["loss"] == pytest.approx(1.975)
    assert "fault" not in found[7]  # 1.98 is the limit
    assert found[11]["loss"] == pytest.approx(1.0)


@pytest.mark.parametrize("loss", [1.99, 2.0, 2.5, 40.0])
def test_a_loss_at_the_unigram_entropy_or_above_is_a_fault(loss: float) -> None:
    (*_, last) = watch([loss] * 8, watch_every=4, watch_after=8)
    assert "knows only how frequent each token is (2 nats)" in last["fault"]
    assert last["remedy"] == REMEDY
    assert "stop" not in last
    (*_, stopped) = watch([loss] * 8, watch_every=4, watch_after=8, on_stuck="stop")
    assert stopped["stop"] == stopped["fault"]


def test_the_monitor_waits_for_the_warm_up_and_can_be_off() -> None:
    assert "fault" not in watch([2.0] * 8, watch_every=4, watch_after=4, warmup=5)[-1]
    assert "fault" in watch([2.0] * 12, watch_every=4, watch_after=4, warmup=5)[-1]
    assert watch([2.0] * 8, watch_every=0) == [None] * 8
    task = LanguageModel(Deaf(V))
    task.train()(torch.zeros(1, 3, dtype=torch.int64))
    assert task.after_step(99) is None


def test_its_state_is_in_the_checkpoint() -> None:
    task = LanguageModel(Deaf(V), LanguageConfig(watch_every=4), unigram_entropy=2.0)
    task._losses.append(torch.tensor(1.5))
    task.after_step(0)
    other = LanguageModel(Deaf(V), LanguageConfig(watch_every=4), unigram_entropy=2.0)
    other.load_state_dict(task.state_dict())
    assert other.watched.tolist() == [1.5, 1.0]


def test_an_evaluation_is_not_watched() -> None:
    task = LanguageModel(Deaf(V), unigram_entropy=2.0).eval()
    task(torch.zeros(1, 3, dtype=torch.int64))
    assert not task._losses


@pytest.mark.parametrize(
    "field", [{"loss_chunk": 0}, {"watch_every": -1}, {"watch_after": -1}, {"stuck_share": 0.0}, {"on_stuck": "x"}]
)
def test_configs_that_make_no_sense(field: dict[str, Any], unchecked: None) -> None:
    with pytest.raises(InputError, match=next(iter(field))):
        LanguageConfig(**field)
