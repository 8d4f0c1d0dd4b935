"""iBOT's patch loss in float64, from its formulas: loops over crops, images and patches, one at a time.

Images go through the backbone alone. A masked image goes through its modules with the masked rows of the embedding
written over.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from reference.dino import loss_of
from torch import Tensor


def tokens_of(vit: Any, image: Tensor, mask: Tensor, mask_token: Tensor | None) -> Tensor:
    """Final tokens of one image (1 + p, d); p patches row by row."""
    embedded = vit.patch_embed(image[None])[0]  # (rows, columns, d)
    rows = []
    for i in range(embedded.shape[0]):
        columns = []
        for j in range(embedded.shape[1]):
            hidden = mask_token is not None and bool(mask[i * embedded.shape[1] + j])
            columns.append(mask_token[0] if hidden and mask_token is not None else embedded[i, j])
        rows.append(torch.stack(columns))
    x = vit._pos_embed(torch.stack(rows)[None])
    for block in vit.blocks:
        x = block(x)
    return vit.norm(x)[0]


def losses_of(
    student: tuple[Any, Any],
    teacher: tuple[Any, Any],
    crops: Sequence[Tensor],
    masks: Tensor,
    mask_token: Tensor,
    centers: Mapping[str, Tensor],
    *,
    temp: float,
    teacher_temp: float,
    patch_temp: float,
    pooling: str = "class",
    global_crops: int = 2,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss of features, loss of patches, and the means of the teacher's outputs by which the centres move.

    Args:
        student: backbone and head.
        teacher: backbone and head.
        crops: of all images; the teacher's come first.
        masks: (global crops, images, patches).
        mask_token: (1, d).
        centers: `image` and `patch`.
    """

    def feature(tokens: Tensor) -> Tensor:
        return tokens[0] if pooling == "class" else sum(tokens[2:], tokens[1]) / (len(tokens) - 1)

    images = len(crops[0])
    of_student: list[list[Tensor]] = []
    of_teacher: list[list[Tensor]] = []
    total, means = torch.zeros((), dtype=torch.float64), []
    for crop, batch in enumerate(crops):
        of_student.append([])
        for index in range(images):
            masked = crop < global_crops
            mask = masks[crop, index] if masked else torch.zeros(0)
            seen = tokens_of(student[0], batch[index], mask, mask_token if masked else None)
            of_student[-1].append(student[1](feature(seen)[None])[0])
            if not masked:
                continue
            with torch.no_grad():
                full = tokens_of(teacher[0], batch[index], mask, None)
                targets = [teacher[1](token[None])[0] for token in full[1:]]
                if index == 0:
                    of_teacher.append([])
                of_teacher[-1].append(teacher[1](feature(full)[None])[0])
            means.append(sum(targets[1:], targets[0]) / len(targets))
            of_image = []
            for patch, target in enumerate(targets):
                if mask[patch]:
                    q = torch.exp((target - centers["patch"]) / patch_temp)
                    s = student[1](seen[1 + patch][None])[0] / temp
                    of_image.append(-(q / q.sum() * (s - torch.log(torch.exp(s).sum()))).sum())
            if of_image:
                total = total + sum(of_image[1:], of_image[0]) / len(of_image)
    image_loss = loss_of(of_student, of_teacher, centers["image"], temp, teacher_temp)
    rows = [row for crop in of_teacher for row in crop]
    seen_means = {"image": sum(rows[1:], rows[0]) / len(rows), "patch": sum(means[1:], means[0]) / len(means)}
    return image_loss, total / (images * global_crops), seen_means
