"""DINO's loss: the student's cross-entropy with the teacher's centred, sharpened outputs (Caron et al. 2021, 3.1)."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from skipless.errors import InputError


class DINOLoss(nn.Module):
    """Cross-entropy H(P_teacher, P_student) in nats, averaged over all pairs of different crops.

    P_student = softmax(s / student_temp), P_teacher = softmax((t - center) / teacher_temp). Crop v of the student is
    compared with crop i of the teacher if v != i. Everything is computed at least in float32, even under autocast.

    Args:
        out_dim: number K of prototypes.
        student_temp: temperature of the student's softmax.
        center_momentum: momentum of the centre's running mean.

    Attributes:
        center: running mean of the teacher's outputs, the only state.

    Example:
        >>> loss = DINOLoss(8)
        >>> crops = [torch.zeros(4, 8)] * 3
        >>> round(loss(crops, crops[:2], teacher_temp=0.04).item(), 4)  # ln 8
        2.0794
    """

    center: Tensor

    def __init__(self, out_dim: int, *, student_temp: float = 0.1, center_momentum: float = 0.9) -> None:
        super().__init__()
        if out_dim < 2 or not student_temp > 0 or not 0 <= center_momentum <= 1:
            raise InputError(
                f"DINOLoss(out_dim={out_dim}, student_temp={student_temp}, center_momentum={center_momentum}): give "
                "two prototypes or more, a positive temperature and a momentum in 0 to 1"
            )
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, out_dim))
        # Not a buffer: DistributedDataParallel would overwrite it with the first process's at every forward pass.
        self._pending: Tensor | None = None

    def forward(
        self,
        student_crops: Sequence[Float[Tensor, "b k"]],
        teacher_crops: Sequence[Float[Tensor, "b k"]],
        *,
        teacher_temp: float,
    ) -> Float[Tensor, ""]:
        """Return the loss with the present centre; in training mode, update the centre afterwards.

        Args:
            student_crops: the student's outputs for every crop, those that the teacher sees first.
            teacher_crops: the teacher's outputs for the global crops.
            teacher_temp: temperature of the teacher's softmax.

        Raises:
            InputError: if there is no pair of different crops.
        """
        loss = self.cross_entropy(student_crops, self.targets(teacher_crops, teacher_temp=teacher_temp))
        if self.training:
            self.observe(teacher_crops)
            self.update_center_()
        return loss

    @torch.no_grad()
    def targets(
        self, teacher_crops: Sequence[Float[Tensor, "b k"]], *, teacher_temp: float
    ) -> Float[Tensor, "crops b k"]:
        """Return the centred and sharpened targets of the student: a distribution for each crop and sample."""
        if not teacher_temp > 0:
            raise InputError(f"teacher_temp {teacher_temp}: give a positive temperature")
        outputs = _stack_float32(teacher_crops)
        with torch.autocast(outputs.device.type, enabled=False):
            return torch.softmax((outputs - self.center) / teacher_temp, dim=-1)

    def cross_entropy(
        self, student_crops: Sequence[Float[Tensor, "b k"]], targets: Float[Tensor, "crops b k"]
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the student's crops with the `targets` of the first of them.

        Raises:
            InputError: if there are more targets than crops, or no pair of different crops.
        """
        pairs = len(targets) * (len(student_crops) - 1)
        if pairs < 1 or len(targets) > len(student_crops):
            raise InputError(
                f"{len(student_crops)} crops of the student and {len(targets)} of the teacher: give the student the "
                "teacher's crops first, and at least two"
            )
        outputs = _stack_float32(student_crops)
        with torch.autocast(outputs.device.type, enabled=False):
            log_p = torch.log_softmax(outputs / self.student_temp, dim=-1)
            # Summing over v != i before the product with the target leaves two products for any number of crops.
            others = log_p.sum(0) - log_p[: len(targets)]
            return -(targets * others).sum(-1).mean(-1).sum() / pairs

    @torch.no_grad()
    def observe(self, teacher_crops: Sequence[Float[Tensor, "b k"]]) -> None:
        """Add outputs, for example of one micro-batch, to those of the next `update_center_`."""
        outputs = _stack_float32(teacher_crops).flatten(0, 1)
        noted = torch.cat([outputs.sum(0), outputs.new_full((1,), len(outputs))])
        self._pending = noted if self._pending is None else self._pending + noted

    @torch.no_grad()
    def update_center_(self) -> None:
        """Move the centre towards the mean of all outputs observed since the last update, over all processes.

        A mean that is not finite leaves the centre unchanged; the loss of that step shows it.
        """
        if self._pending is None:
            return
        seen, self._pending = self._pending, None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(seen)
        mean = (seen[:-1] / seen[-1])[None]
        if self.center.dtype != mean.dtype:
            self.center = self.center.to(mean.dtype)
        moved = self.center * self.center_momentum + mean * (1 - self.center_momentum)
        self.center.copy_(torch.where(mean.isfinite().all(), moved, self.center))


def _stack_float32(crops: Sequence[Tensor]) -> Float[Tensor, "crops b k"]:
    """Stack crops, and convert half precision to float32."""
    stacked = torch.stack(list(crops))
    return stacked.to(torch.promote_types(stacked.dtype, torch.float32))
