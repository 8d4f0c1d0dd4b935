"""plan: estimates time and memory of a workload on a machine, from counted work and assumed efficiencies."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from skipless.choices import SharedStrategy as Strategy
from skipless.display import Record, Table
from skipless.display.axes import bars
from skipless.errors import InputError
from skipless.models import block_views
from skipless.optim import SOAP
from skipless.planning.activations import SINGLE, Keeping
from skipless.planning.assumptions import Assumptions
from skipless.planning.hardware import GPU
from skipless.planning.optimizer_cost import Cost, parameter_costs, shard_costs, total
from skipless.planning.work import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GIB = 2**30


@dataclass(frozen=True, repr=False)
class Setup(Record):
    """The hardware of a run, and how the run uses it.

    Attributes:
        gpu: data sheet of the GPU.
        devices: number of GPUs.
        strategy: replicas of the model (ddp) or shards (fsdp).
        share: whether SOAP's state is sharded over the devices; under fsdp it always is.
        micro_batch: images in one forward pass of a device; None takes the largest number that fits.
        fused: whether attention is fused.
        checkpointing: whether every block uses gradient checkpointing.
    """

    gpu: GPU
    devices: int = 1
    strategy: Strategy = "ddp"
    share: bool = True
    micro_batch: int | None = None
    fused: bool = True
    checkpointing: bool = False

    def _summary(self) -> str:
        batch = "largest micro-batch" if self.micro_batch is None else f"micro-batch {self.micro_batch}"
        return f"{self.devices} x {self.gpu.name}, {self.strategy}, {batch}"

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise InputError(f"--devices {self.devices}: give at least 1")


@dataclass(frozen=True, repr=False)
class Memory(Record):
    """Bytes on the fullest device between forward and backward pass, the peak except for temporary tensors.

    Attributes:
        weights: trained weights, in float32.
        teacher: DINO's teacher, in float32.
        gradients: gradients, in float32.
        buckets: DDP's buckets of gradients, or the blocks that FSDP has gathered at a time.
        optimizer: state of the optimizer.
        casts: copies of weights in half precision.
        activations: tensors that autograd saves, and the batch.
    """

    weights: float
    teacher: float
    gradients: float
    buckets: float
    optimizer: float
    casts: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(vars(self).values())

    def _summary(self) -> str:
        parts = sorted(vars(self).items(), key=lambda part: -part[1])
        largest = ", ".join(f"{name} {value / _GIB:.2f}" for name, value in parts[:3])
        return f"{self.total / _GIB:.2f} GiB on the fullest device, the largest parts {largest}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each part."""
        rows = [(name, f"{value / _GIB:.3f}", _share(value, self.total)) for name, value in vars(self).items()]
        total = ("sum", f"{self.total / _GIB:.3f}", _share(self.total, self.total))
        return (Table(("memory", "GiB", "share"), [*rows, total], "on the fullest device", align="lrr"),)

    def _draw(self, axes: "Axes") -> None:
        bars(axes, {name: value / _GIB for name, value in vars(self).items()}, "GiB on the fullest device")


@dataclass(frozen=True, repr=False)
class Time(Record):
    """Seconds of the parts of an average optimizer step."""

    passes: float
    optimizer: float
    communication: float  # not overlapped with computation

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.passes + self.optimizer + self.communication

    def _summary(self) -> str:
        parts = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in vars(self).items())
        return f"{1e3 * self.total:.1f} ms a step: {parts}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each part."""
        rows = [(name, f"{1e3 * value:.2f}", _share(value, self.total)) for name, value in vars(self).items()]
        total = ("sum", f"{1e3 * self.total:.2f}", _share(self.total, self.total))
        return (Table(("time", "ms a step", "share"), [*rows, total], "an average step", align="lrr"),)

    def _draw(self, axes: "Axes") -> None:
        bars(axes, {name: 1e3 * value for name, value in vars(self).items()}, "ms of an average step")


@dataclass(frozen=True, repr=False)
class Plan(Record):
    """Time and memory of a run.

    Attributes:
        micro_batch: images in one forward pass of a device.
        accumulation: micro-batches of a device in one step.
        flops_per_image: FLOPs of forward pass, backward pass and teacher for a sample, without recomputation.
        optimizer_flops: FLOPs of an average optimizer step over all devices: matrix products and QR.
        flops: FLOPs of the run, including evaluations and recomputation.
        memory: memory on the fullest device.
        time: time of a step.
        hours: GPU hours, summed over all devices.
        sent_bytes: bytes that each device sends in a step.
        fits: whether the run fits into the GPU's usable memory.
        unit: what a sample is: an image, or a window of text.
    """

    micro_batch: int
    accumulation: int
    flops_per_image: float
    optimizer_flops: float
    flops: float
    memory: Memory
    time: Time
    hours: float
    sent_bytes: float
    fits: bool
    unit: str = "image"

    _size: ClassVar[tuple[float, float]] = (6.4, 3.0)

    def _summary(self) -> str:
        fits = "" if self.fits else ", does not fit"
        batch = f"{self.accumulation} x {self.micro_batch} {self.unit}s a device"
        memory = f"{self.memory.total / _GIB:.1f} GiB{fits}"
        return f"{1e3 * self.time.total:.1f} ms a step, {self.hours:.3g} GPU hours, {memory}, {batch}"

    def tables(self) -> tuple[Table, ...]:
        """The run as a whole, then time and memory by parts."""
        rows = [
            ("micro-batches a step", f"{self.accumulation} x {self.micro_batch}"),
            (
                f"FLOPs of {'an' if self.unit == 'image' else 'a'} {self.unit}",
                f"{self.flops_per_image / 1e9:,.1f} GFLOP",
            ),
            ("FLOPs of the optimizer's step", f"{self.optimizer_flops / 1e9:,.1f} GFLOP"),
            ("FLOPs of the run", f"{self.flops / 1e18:,.3g} EFLOP"),
            ("GPU hours", f"{self.hours:,.3g}"),
            ("sent by each device, a step", f"{self.sent_bytes / _GIB:.3f} GiB"),
        ]
        notes = () if self.fits else ("! it does not fit into the GPU's usable memory",)
        whole = Table(("run", "value"), rows, "estimated, not measured", notes, align="lr")
        return (whole, *self.time.tables(), *self.memory.tables())

    def _draw(self, axes: "Axes") -> None:
        self.memory._draw(axes)


def plan(work: Workload, setup: Setup, assumed: Assumptions | None = None) -> Plan:
    """Estimate time and memory of a run on a machine.

    Raises:
        InputError: if devices or micro-batch do not divide the batch, or the GPU does not support the precision.

    Example:
        >>> from skipless.planning import find_gpu, workload
        >>> from skipless.recipes import table1
        >>> made = plan(workload(table1("paper", data="imagenet/")), Setup(find_gpu("h100"), devices=8))
        >>> made.fits, made.micro_batch * made.accumulation * 8
        (True, 4096)
    """
    assumed = assumed or Assumptions()
    own, batch = _rank_costs(work, setup), _device_batch(work, setup)
    usable = assumed.usable * setup.gpu.memory
    sizes = [setup.micro_batch] if setup.micro_batch else [n for n in range(batch, 0, -1) if batch % n == 0]
    at_rest, each = _memory(work, setup, own)
    size = next((size for size in sizes if at_rest.total + size * each <= usable), sizes[-1])
    kept = replace(at_rest, activations=at_rest.activations + size * each)
    per_image = float(work.forward + work.backward + work.teaching)
    again = work.forward if setup.checkpointing else 0
    peak = setup.gpu.peak(work.fit.precision) * assumed.mfu
    passes = batch * (per_image + again) / peak
    hidden, bare = _communication_bytes(work, setup, batch // size)
    covering = passes if setup.strategy == "fsdp" else size * work.backward / peak
    time = Time(
        passes=passes,
        optimizer=_optimizer_seconds(work, setup, own, assumed),
        communication=max(0.0, hidden / assumed.link - covering) + bare / assumed.link,
    )
    everyone = total(parameter_costs(work.optimizer))
    once = everyone.products + _refreshes(work) * (everyone.refresh_products + everyone.factorisation)
    copies = 1 if _is_shared_soap(work, setup) or setup.strategy == "fsdp" else setup.devices
    optimizer = copies * once + setup.devices * everyone.whole_products
    evaluation = work.evaluation
    return Plan(
        micro_batch=size,
        accumulation=batch // size,
        flops_per_image=per_image,
        optimizer_flops=optimizer,
        flops=work.steps * (work.fit.batch_size * (per_image + again) + optimizer) + evaluation,
        memory=kept,
        time=time,
        hours=(setup.devices * work.steps * time.total + evaluation / peak) / 3600,
        sent_bytes=hidden + bare,
        fits=kept.total <= usable,
        unit=work.unit,
    )


def _memory(work: Workload, setup: Setup, own: list[Cost]) -> tuple[Memory, float]:
    """Return the memory on the fullest device without images, and the bytes that each image adds."""
    keeping = Keeping(work.fit.precision, setup.fused, setup.checkpointing)
    held = setup.devices if setup.strategy == "fsdp" else 1
    at_rest = Memory(
        weights=SINGLE * work.parameters / held,
        teacher=SINGLE * work.frozen / held,
        gradients=SINGLE * work.parameters / held,
        buckets=_bucket_bytes(work, setup),
        optimizer=max(cost.state_bytes for cost in own),
        casts=work.casts(keeping),
        activations=work.kept_once(keeping),
    )
    return at_rest, work.kept(keeping) + work.loaded()


def _rank_costs(work: Workload, setup: Setup) -> list[Cost]:
    """Return the optimizer's cost on each rank; one entry stands for equal ranks."""
    costs = parameter_costs(work.optimizer)
    if _is_shared_soap(work, setup):
        return shard_costs(costs, setup.devices)
    if setup.strategy == "fsdp":
        return [total(costs).divided(setup.devices)]
    return [total(costs)]


def _is_shared_soap(work: Workload, setup: Setup) -> bool:
    several = setup.devices > 1 and (setup.share or setup.strategy == "fsdp")
    return several and isinstance(work.optimizer, SOAP)


def _device_batch(work: Workload, setup: Setup) -> int:
    batch, rest = divmod(work.fit.batch_size, setup.devices)
    if rest or not batch:
        raise InputError(
            f"--devices {setup.devices} does not divide the batch of {work.fit.batch_size}; give --batch-size"
        )
    if setup.micro_batch is not None and (setup.micro_batch < 1 or batch % setup.micro_batch):
        raise InputError(f"--micro-batch {setup.micro_batch} does not divide a device's {batch} {work.unit}s of a step")
    return batch


def _optimizer_seconds(work: Workload, setup: Setup, own: list[Cost], assumed: Assumptions) -> float:
    """Return the seconds of an average update on the slowest rank, including the teacher's moving average.

    The moving average reads two tensors and writes one.
    """
    gpu, refreshes = setup.gpu, _refreshes(work)
    held = setup.devices if setup.strategy == "fsdp" else 1
    bandwidth = gpu.bandwidth * assumed.bandwidth_share

    def seconds(cost: Cost) -> float:
        products = cost.products + refreshes * cost.refresh_products
        factorising = refreshes * cost.factorisation / assumed.qr_share
        half = cost.whole_products / assumed.mfu / (gpu.half if gpu.bf16 else gpu.single)
        return (products / assumed.product_share + factorising) / gpu.single + half + cost.moved_bytes / bandwidth

    return max(seconds(cost) for cost in own) + 3 * SINGLE * work.frozen / held / bandwidth


def _refreshes(work: Workload) -> float:
    """Return the number of SOAP's refreshes per step."""
    return 1 / work.frequency if work.frequency else 0.0


def _bucket_bytes(work: Workload, setup: Setup) -> float:
    if setup.devices == 1:
        return 0.0
    if setup.strategy == "ddp":
        return float(SINGLE * work.parameters)
    # Gathered at a time: the parameters outside the blocks, and two blocks, each with its gradient.
    blocks = [_numel(view.block) for view in block_views(work.backbone)]
    return float(2 * SINGLE * (work.parameters - sum(blocks) + 2 * max(blocks)))


def _communication_bytes(work: Workload, setup: Setup, accumulation: int) -> tuple[float, float]:
    """Return the bytes that each device sends in a step: those that can overlap with passes, and the others.

    With ring algorithms, a reduce-scatter or an all-gather sends (n - 1) / n of the tensor. DDP needs both for the
    gradients. FSDP reduce-scatters the gradients, and gathers weights before the forward and before the backward pass,
    a teacher's once. Sharded SOAP gathers the new weights from their owners, and under FSDP sends the gradients to the
    owners first. Muon gathers weights, gradients and momenta under FSDP.
    """
    share = (setup.devices - 1) / setup.devices
    way = share * SINGLE
    owners = way * work.parameters * _is_shared_soap(work, setup)
    if setup.strategy == "ddp":
        return 2 * way * work.parameters, owners
    gathered = accumulation * way * (2 * work.parameters + work.frozen)
    muon = share * total(parameter_costs(work.optimizer)).gathered_bytes
    return gathered + way * work.parameters, 2 * owners + muon


def _numel(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
