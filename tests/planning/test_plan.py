"""Properties of plans that do not depend on what is assumed."""

from dataclasses import replace

import pytest

from skipless.errors import InputError
from skipless.planning import Assumptions, Setup, find_gpu, plan, workload
from skipless.planning.work import Workload
from skipless.recipes import dino, table1

H100 = find_gpu("h100")


@pytest.fixture(scope="module")
def soap() -> Workload:
    return workload(table1("paper", "skipless", "soap", data="-"))


@pytest.fixture(scope="module")
def adamw() -> Workload:
    return workload(table1("paper", "skipless", "adamw", data="-"))


def test_hours_are_flops_over_what_is_assumed(adamw: Workload) -> None:
    made = plan(adamw, Setup(H100), Assumptions(mfu=0.5, bandwidth_share=1.0))
    passes = (made.flops - adamw.evaluation) / (0.5 * 989e12)
    update = 28 * adamw.parameters / 3350e9  # bytes that AdamW moves
    assert made.hours * 3600 == pytest.approx(passes + adamw.steps * update + adamw.evaluation / (0.5 * 989e12))
    assert adamw.evaluation == 300 * 50_000 * adamw.forward
    twice = plan(adamw, Setup(H100), Assumptions(mfu=0.25, bandwidth_share=1.0))
    assert twice.time.passes == pytest.approx(2 * made.time.passes)


def test_soap_shared_out_falls_with_the_ranks(soap: Workload) -> None:
    alone, shared, whole = (
        plan(soap, Setup(H100, devices, share=share, micro_batch=64))
        for devices, share in ((1, True), (8, True), (8, False))
    )
    assert shared.memory.optimizer < 0.15 * alone.memory.optimizer
    assert shared.time.optimizer < 0.15 * alone.time.optimizer
    assert whole.memory.optimizer == alone.memory.optimizer
    assert whole.optimizer_flops == pytest.approx(8 * shared.optimizer_flops)
    assert shared.sent_bytes == pytest.approx(1.5 * whole.sent_bytes)


def test_fsdp_shards_what_ddp_copies(adamw: Workload) -> None:
    ddp, fsdp = (plan(adamw, Setup(H100, 64, strategy, micro_batch=64)).memory for strategy in ("ddp", "fsdp"))
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(fsdp, part) == pytest.approx(getattr(ddp, part) / 64)
    assert fsdp.activations == ddp.activations
    assert ddp.buckets == ddp.gradients
    assert plan(adamw, Setup(H100, 1)).memory.buckets == 0


def test_muon_shards_its_state_and_not_its_work() -> None:
    work = workload(table1("paper", "skipless", "muon", data="-"))
    alone, ddp, fsdp = (
        plan(work, Setup(H100, devices, strategy, micro_batch=64))
        for devices, strategy in ((1, "ddp"), (8, "ddp"), (8, "fsdp"))
    )
    assert alone.memory.optimizer == ddp.memory.optimizer == pytest.approx(8 * fsdp.memory.optimizer)
    assert 4 * work.parameters < alone.memory.optimizer < 1.05 * 4 * work.parameters  # one momentum, of nearly all
    assert fsdp.optimizer_flops == ddp.optimizer_flops == 8 * alone.optimizer_flops > 0
    adamw = plan(workload(table1("paper", "skipless", "adamw", data="-")), Setup(H100, 8, "fsdp", micro_batch=64))
    assert fsdp.sent_bytes - adamw.sent_bytes == pytest.approx(7 / 8 * 12 * 85e6, rel=0.01)  # 85 million in matrices


def test_checkpointing_trades_work_for_memory(adamw: Workload) -> None:
    plain, again = (plan(adamw, Setup(H100, micro_batch=64, checkpointing=c)) for c in (False, True))
    assert again.memory.activations < 0.25 * plain.memory.activations
    assert again.time.passes / plain.time.passes == pytest.approx(4 / 3, rel=0.01)
    unfused = plan(adamw, Setup(H100, micro_batch=64, fused=False))
    assert unfused.memory.activations > 1.4 * plain.memory.activations


def test_the_largest_micro_batch_that_fits_is_taken(adamw: Workload) -> None:
    made = plan(adamw, Setup(H100))
    assert made.fits
    assert made.micro_batch * made.accumulation == 4096
    assert not plan(adamw, Setup(H100, micro_batch=2 * made.micro_batch)).fits
    small = replace(H100, memory=2**30)
    assert not plan(adamw, Setup(small)).fits


def test_a_teacher_costs_its_passes_and_its_weights() -> None:
    work = workload(dino("vit_small", data="-"))
    assert work.frozen == work.parameters
    assert work.steps == 300 * (1_281_167 // 1024)
    globals_only = workload(dino("vit_small", data="-").with_(crops__local_crops=0))
    assert globals_only.teaching == work.teaching
    assert globals_only.forward == work.teaching
    assert plan(work, Setup(H100)).memory.teacher == 4 * work.frozen


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda work: Setup(H100, 0), "--devices 0"),
        (lambda work: plan(work, Setup(H100, 3)), "--devices 3 does not divide the batch of 4096"),
        (lambda work: plan(work, Setup(H100, micro_batch=3)), "--micro-batch 3 does not divide"),
        (lambda work: plan(work, Setup(find_gpu("v100"))), "V100 SXM2 32 GB has no bf16"),
        (lambda work: find_gpu("h10"), "no data sheet of the GPU 'h10' here; did you mean h100?"),
        (lambda work: Assumptions(qr_share=0.0), "qr_share 0.0 is no share"),
        (lambda work: Assumptions(link=0.0), "link 0.0"),
        (lambda work: workload(table1("paper", data="-"), images=0), "--images 0"),
        (lambda work: workload(table1("paper", data="-"), images=100), "batch_size 4096 does not fit"),
    ],
)
def test_what_cannot_be_planned(adamw: Workload, run, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        run(adamw)
