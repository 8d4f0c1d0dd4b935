"""The loss at masked patches: the student says there what the teacher, who sees them, says (Zhou et al. 2022, iBOT)."""

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.tasks.dino.center import Centered, in_float32


class PatchLoss(Centered):
    """Cross-entropy H(P_teacher, P_student) in nats at masked patches (iBOT, Eq. 3; the published code's weights).

    Each masked image counts with the mean over its masked patches. The loss is the mean over *all* images, in which one
    without a mask counts with 0. The centre is that of the teacher's outputs at all patches, masked or not. Everything
    is computed at least in float32, even under autocast.

    Args:
        out_dim: number K of prototypes.
        student_temp: temperature of the student's softmax.
        center_momentum: momentum of the centre's running mean.

    Attributes:
        center: running mean of the teacher's outputs, the only state.

    Example:
        >>> loss = PatchLoss(8)
        >>> outputs = torch.zeros(3, 8)  # of two masked patches in one image, one in another, none in two
        >>> weights = torch.tensor([1 / 2, 1 / 2, 1.0]) / 4
        >>> round(loss(outputs, outputs, weights, teacher_temp=0.04).item(), 4)  # ln 8 / 2
        1.0397
    """

    def forward(
        self,
        student: Float[Tensor, "m k"],
        teacher: Float[Tensor, "m k"],
        weights: Float[Tensor, " m"],
        *,
        teacher_temp: float,
    ) -> Float[Tensor, ""]:
        """Return the loss with the present centre, which `observe` and `update_center_` move.

        Args:
            student: the student's outputs at the masked patches of all images, as it sees them masked.
            teacher: the teacher's at the same patches, as it sees them.
            weights: of each patch: 1 / (masked patches of its image x images).
            teacher_temp: temperature of the teacher's softmax.
        """
        with torch.no_grad():
            targets = self._sharpened(in_float32(teacher), teacher_temp)
        outputs = in_float32(student)
        with torch.autocast(outputs.device.type, enabled=False):
            log_p = torch.log_softmax(outputs / self.student_temp, dim=-1)
            return -((targets * log_p).sum(-1) * weights.to(outputs.dtype)).sum()

    @torch.no_grad()
    def observe(self, teacher_means: Float[Tensor, "b k"]) -> None:
        """Add the means over all patches of some images to those of the next `update_center_`."""
        self._add_outputs(in_float32(teacher_means))
