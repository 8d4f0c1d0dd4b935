"""DINO's loss: the student's cross-entropy with the teacher's centred, sharpened outputs (Caron et al. 2021, 3.1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError
from skipless.tasks.dino.center import Centered, in_float32


class DINOLoss(Centered):
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
        return self._sharpened(in_float32(torch.stack(list(teacher_crops))), teacher_temp)

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
        outputs = in_float32(torch.stack(list(student_crops)))
        with torch.autocast(outputs.device.type, enabled=False):
            log_p = torch.log_softmax(outputs / self.student_temp, dim=-1)
            # Summing over v != i before the product with the target leaves two products for any number of crops.
            others = log_p.sum(0) - log_p[: len(targets)]
            return -(targets * others).sum(-1).mean(-1).sum() / pairs

    @torch.no_grad()
    def observe(self, teacher_crops: Sequence[Float[Tensor, "b k"]]) -> None:
        """Add outputs, for example of one micro-batch, to those of the next `update_center_`."""
        self._add_outputs(in_float32(torch.stack(list(teacher_crops))).flatten(0, 1))
