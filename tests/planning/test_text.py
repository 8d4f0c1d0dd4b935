"""Work and memory of language models, beside what torch counts and what autograd keeps."""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from skipless.errors import InputError
from skipless.experiments.language.recipe import language
from skipless.planning import Keeping, Setup, find_gpu, plan, text_workload
from skipless.planning.work import workload
from tests.planning.test_activations import kept

WINDOWS = 2
LAYERS = 3


def recipe(row="skipless", context: int = 64, heads: int = 4, groups: int | None = None, **changes):
    made = language("tiny", row)
    kwargs = {**made.model.kwargs, "num_hidden_layers": LAYERS, "num_attention_heads": heads}
    if groups is not None:
        kwargs["num_key_value_heads"] = groups
    return made.with_(model__kwargs=kwargs, model__init=None, data__context=context, **changes)


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("row", ["skip", "skipless"])
def test_flops_are_those_that_torch_counts(row, groups) -> None:
    work = text_workload(recipe(row, groups=groups), windows=100, vocabulary=500)
    task, found = work.task.to_empty(device="cpu"), []
    ids = torch.zeros(WINDOWS, 65, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        found.append(task(ids)["loss"])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        found[0].backward()
    assert WINDOWS * work.forward == forward.get_total_flops()
    assert WINDOWS * work.backward == backward.get_total_flops()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("row", ["skip", "skipless"])
def test_bytes_are_those_that_autograd_keeps(row, precision, device) -> None:
    """On a CPU for real; as a GPU would, on tensors without memory."""
    keeping = Keeping(precision, fused=device == "cpu", device=device)
    work = text_workload(recipe(row, context=256), windows=100, vocabulary=500)
    planned = WINDOWS * work.kept(keeping) + work.casts(keeping)
    with FakeTensorMode(allow_non_fake_inputs=True) if device == "cuda" else nullcontext():
        task = work.task.to_empty(device=device)
        if not keeping.fused:
            task.model.set_attn_implementation("eager")
        ids = torch.zeros(WINDOWS, 257, dtype=torch.int64, device=device)
        torch.set_autocast_enabled(device, precision == "bf16")
        torch.set_autocast_dtype(device, torch.bfloat16)
        try:
            measured = kept(lambda: task(ids), task)
        finally:
            torch.set_autocast_enabled(device, False)
            torch.clear_autocast_cache()
    assert planned == pytest.approx(measured, rel=0.03)


def test_the_papers_model() -> None:
    work = text_workload(language("paper", "skip", "soap", data="-"))
    assert work.parameters == 109_529_856
    assert (work.steps, work.context, work.unit) == (20_480, 4096, "window")
    made = plan(work, Setup(find_gpu("h100"), 8))
    assert made.fits
    assert made.micro_batch * made.accumulation == 64 // 8
    assert "windows a device" in repr(made)
    run = 3 * work.forward * 64 * work.steps
    assert made.flops == pytest.approx(run + work.evaluation + work.steps * made.optimizer_flops)


def test_checkpointing_keeps_less_and_computes_more() -> None:
    work = text_workload(language("paper", data="-"))
    one = Setup(find_gpu("h100"), 8, micro_batch=1)
    ordinary, checkpointed = plan(work, one), plan(work, Setup(find_gpu("h100"), 8, micro_batch=1, checkpointing=True))
    assert checkpointed.memory.activations < ordinary.memory.activations
    assert checkpointed.time.passes == pytest.approx(4 / 3 * ordinary.time.passes)


def test_what_has_no_images_or_no_ids_is_refused() -> None:
    with pytest.raises(InputError, match="text_workload"):
        workload(language())
    with pytest.raises(InputError, match="vocabulary 1: give"):
        text_workload(language(), vocabulary=1)
