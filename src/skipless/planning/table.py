"""Tables of plans, as Markdown that is aligned for a terminal; their JSON, and their assumptions in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from skipless.display import Record, Table
from skipless.display.values import counted
from skipless.planning.estimate import Assumptions, Plan, Setup
from skipless.planning.work import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GIB = 2**30


@dataclass(frozen=True, eq=False, repr=False)
class PlanRow(Record):
    """One planned run.

    Attributes:
        model: name of the model.
        optimizer: `adamw`, `soap` or `muon`.
        work: workload of the run.
        setup: hardware of the run.
        plan: time and memory of the run.
        checkpointed: the plan with gradient checkpointing, at the same micro-batch.
        unfused: the plan without fused attention.
    """

    model: str
    optimizer: str
    work: Workload
    setup: Setup
    plan: Plan
    checkpointed: Plan
    unfused: Plan

    def _summary(self) -> str:
        return f"{self.model}, {self.optimizer}, {self.setup._summary()}; {self.plan._summary()}"

    def tables(self) -> Sequence[Table]:
        """The plan's tables, under the run's name."""
        first, *rest = self.plan.tables()
        name = f"{self.model}, {self.optimizer}, {self.setup._summary()}; {first.caption}"
        return (replace(first, caption=name), *rest)

    def _draw(self, axes: "Axes") -> None:
        self.plan._draw(axes)

    def as_json(self) -> dict[str, Any]:
        """Return every number of the plan, unrounded."""
        work = self.work
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "devices": self.setup.devices,
            "strategy": self.setup.strategy,
            "parameters": work.parameters,
            "steps": work.steps,
            f"{work.unit}s": work.images,
            **work.sample_json(),
            "epochs": work.fit.epochs,
            "batch_size": work.fit.batch_size,
            "precision": work.fit.precision,
            f"forward_flops_per_{work.unit}": work.forward,
            f"backward_flops_per_{work.unit}": work.backward,
            f"teacher_flops_per_{work.unit}": work.teaching,
            **asdict(self.plan),
            "seconds_per_step": self.plan.time.total,
            "memory_total": self.plan.memory.total,
            "memory_checkpointed": self.checkpointed.memory.total,
            "memory_unfused": self.unfused.memory.total,
        }


def compute_table(lines: Sequence[PlanRow]) -> str:
    """Return a table of work and time, with a row for each run."""
    work = lines[0].work
    counted_in, each = work.rate
    header = (
        "model", "optimizer", "GPUs", "micro-batch", f"GFLOP / {work.unit}", "optimizer, GFLOP / step", "run, EFLOP",
        "step, ms", "optimizer", "links", "GPU hours", "days", f"{counted_in}/s, each GPU",
    )  # fmt: skip
    rows = []
    for line in lines:
        plan, devices, batch = line.plan, line.setup.devices, line.work.fit.batch_size * each
        rows.append((
            line.model, line.optimizer, f"{devices}", f"{plan.accumulation} x {plan.micro_batch}",
            f"{plan.flops_per_image / 1e9:.1f}", f"{plan.optimizer_flops / 1e9:.1f}", f"{plan.flops / 1e18:.1f}",
            f"{1e3 * plan.time.total:.1f}", _per_cent(plan.time.optimizer, plan.time.total),
            _per_cent(plan.time.communication, plan.time.total), f"{plan.hours:.0f}",
            f"{plan.hours / devices / 24:.2f}", f"{batch / devices / plan.time.total:.0f}",
        ))  # fmt: skip
    return markdown_table(header, rows, left=2)


def memory_table(lines: Sequence[PlanRow]) -> str:
    """Return a table of GiB on the fullest GPU, with a row for each run; runs that do not fit are marked."""
    parts = ("weights", "teacher", "gradients", "buckets", "optimizer", "casts", "activations")
    header = ("model", "optimizer", "GPUs", *parts, "sum, GiB", "checkpointed", "unfused")
    rows = []
    for line in lines:
        memory = line.plan.memory
        sums = [f"{memory.total / _GIB:.1f}{'' if line.plan.fits else ' (does not fit)'}"]
        sums += [f"{other.memory.total / _GIB:.1f}" for other in (line.checkpointed, line.unfused)]
        values = [f"{getattr(memory, part) / _GIB:.2f}" for part in parts]
        rows.append((line.model, line.optimizer, f"{line.setup.devices}", *values, *sums))
    return markdown_table(header, rows, left=2)


def assumptions_text(lines: Sequence[PlanRow], assumed: Assumptions) -> str:
    """Return the assumptions of the plans, one line each."""
    first = lines[0]
    work, setup, fit = first.work, first.setup, first.work.fit
    gpu = setup.gpu
    sharing = "shared out over them" if setup.share or setup.strategy == "fsdp" else "a whole one on each of them"
    share = f"; SOAP {sharing}" if any(line.optimizer == "soap" for line in lines) else ""
    if any(line.optimizer == "muon" for line in lines):
        share += "; Muon's updates computed whole on each of them"
    return "\n".join((
        f"- run: {_length(work)}, {fit.precision}, {work.evaluations} evaluations of {work.evaluated:,} {work.unit}s",
        f"- {work.sample}",
        f"- GPU: {gpu.name} ({gpu.source}, dense): {gpu.peak(fit.precision) / 1e12:.4g} TFLOP/s {fit.precision}, "
        f"{gpu.single / 1e12:.4g} TFLOP/s fp32, {gpu.bandwidth / 1e12:.4g} TB/s, {gpu.memory / _GIB:.0f} GiB",
        f"- several GPUs: {setup.strategy}{share}; {assumed.link / 1e9:g} GB/s each way (--link)",
        f"- assumed shares of these peaks: passes {assumed.mfu:g} (--mfu), optimizer's products "
        f"{assumed.product_share:g} (--product-share), QR {assumed.qr_share:g} (--qr-share), element-wise updates "
        f"{assumed.bandwidth_share:g} of the bandwidth; {assumed.usable:g} of the memory may be filled (--usable)",
        f"- the loader keeps up: it must give each GPU the {work.rate[0]}/s of the last column",
    ))  # fmt: skip


def _length(work: Workload) -> str:
    steps, batches = counted(work.steps, "step"), f"batches of {work.fit.batch_size}"
    if work.fit.steps is not None:
        return f"{steps} in {batches}"
    return f"{counted(work.fit.epochs, 'epoch')} of {work.images:,} {work.unit}s in {batches} ({steps})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return a Markdown table with aligned columns: the first `left` ones to the left, the others to the right.

    Example:
        >>> print(markdown_table(("a", "n"), [("b", "10")], left=1))
        | a |  n |
        |:--|---:|
        | b | 10 |
    """
    return Table(header, rows, align="l" * left + "r" * (len(header) - left)).markdown(padded=True)


def _per_cent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"
