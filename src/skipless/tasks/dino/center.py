"""The centre of self-distillation: a running mean of the teacher's outputs that is taken off before its softmax."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from skipless.errors import InputError


class Centered(nn.Module):
    """What losses of a teacher share: a centre, and targets that are centred and sharpened.

    Args:
        out_dim: number K of prototypes.
        student_temp: temperature of the student's softmax.
        center_momentum: momentum of the centre's running mean.

    Attributes:
        center: running mean of the teacher's outputs, the only state.
    """

    center: Tensor

    def __init__(self, out_dim: int, *, student_temp: float = 0.1, center_momentum: float = 0.9) -> None:
        super().__init__()
        if out_dim < 2 or not student_temp > 0 or not 0 <= center_momentum <= 1:
            raise InputError(
                f"{type(self).__name__}(out_dim={out_dim}, student_temp={student_temp}, "
                f"center_momentum={center_momentum}): give two prototypes or more, a positive temperature and a "
                "momentum in 0 to 1"
            )
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, out_dim))
        # Not a buffer: DistributedDataParallel would overwrite it with the first process's at every forward pass.
        self._pending: Tensor | None = None

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

    def _add_outputs(self, outputs: Float[Tensor, "n k"]) -> None:
        """Add outputs to those of the next `update_center_`."""
        noted = torch.cat([outputs.sum(0), outputs.new_full((1,), len(outputs))])
        self._pending = noted if self._pending is None else self._pending + noted

    def _sharpened(self, outputs: Float[Tensor, "*n k"], teacher_temp: float) -> Float[Tensor, "*n k"]:
        """The teacher's distributions."""
        if not teacher_temp > 0:
            raise InputError(f"teacher_temp {teacher_temp}: give a positive temperature")
        with torch.autocast(outputs.device.type, enabled=False):
            return torch.softmax((outputs - self.center) / teacher_temp, dim=-1)


def in_float32(outputs: Tensor) -> Tensor:
    """Convert half precision to float32."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
