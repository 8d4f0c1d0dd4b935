"""DINO: self-distillation of a student from a moving average of itself, across crops (Caron et al. 2021)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from timm.layers import DropPath  # pyright: ignore[reportPrivateImportUsage]
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from skipless.errors import InputError
from skipless.models import block_views
from skipless.models.vit_view import find_vit
from skipless.tasks.dino.collapse import MAX_IMAGES, REMEDY, class_tokens, measure_collapse
from skipless.tasks.dino.config import DINOConfig
from skipless.tasks.dino.encoder import check_tokens, encode, grid_of, token_width
from skipless.tasks.dino.gradients import clip_, drop_gradients_, local_shards, part_norms
from skipless.tasks.dino.head import DINOHead
from skipless.tasks.dino.loss import DINOLoss
from skipless.tasks.dino.masks import Masks, draw_masks
from skipless.tasks.dino.patch_loss import PatchLoss


class DINO(nn.Module):
    """A student, and a teacher that is an exponential moving average of it and starts as its copy.

    A training loop, such as `skipless.training.fit`, calls `before_step`, `forward` on each micro-batch,
    `before_update` once the gradients are complete, and `after_step` once the optimizer has stepped. Everything that
    changes during a run is a pure function of the step, or part of `state_dict()`.

    Args:
        backbone: maps images to features, and is initialised. It becomes the student, and its copy the teacher. A timm
            ViT needs `num_classes=0` and `dynamic_img_size=True`. Its drop path is set here.
        config: hyperparameters; by default those of the published code.
        total_steps: optimizer steps of the run.
        steps_per_epoch: optimizer steps of an epoch.
        in_dim: width of the features; by default the backbone's `num_features`.
        seed: seed of the head's weights, and of masks.

    Attributes:
        model: the teacher's backbone, which is evaluated and exported.
        student: the student's backbone.
        criterion: the loss, with the centre.
        patch_criterion: the loss at masked patches with a centre of its own; None without `config.patch_loss`.
        mask_token: what the student gets for a masked patch; None without `config.patch_loss`. It starts at 0, is
            trained, decays as matrices do, and has no moving average, as in iBOT: the teacher sees no mask.
        whole: maps a module of the task to one with full, unsharded weights; see `skipless.training.loop.hooks`.
        steps_done: number of optimizer steps at the last `after_step`.

    Raises:
        InputError: if the backbone has a classifier, takes one image size only, its patch tokens are asked for and not
            known, or the lengths do not fit.

    Example:
        >>> from skipless.models import create_model
        >>> vit = create_model("vit_tiny_patch16_224", depth=2, num_classes=0, dynamic_img_size=True, seed=0)
        >>> task = DINO(vit, DINOConfig(out_dim=64, hidden_dim=32), total_steps=10, steps_per_epoch=5)
        >>> crops = [torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), torch.rand(2, 3, 32, 32)]
        >>> sorted(task(crops))
        ['loss', 'teacher_entropy']
    """

    def __init__(
        self,
        backbone: nn.Module,
        config: DINOConfig | None = None,
        *,
        total_steps: int,
        steps_per_epoch: int,
        in_dim: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config = config or DINOConfig()
        self.schedules = config.schedules(total_steps, steps_per_epoch)
        self.model = copy.deepcopy(backbone).requires_grad_(False)
        self.student = _set_drop_path_(backbone, config.drop_path)
        self.student_head = DINOHead(
            _feature_width(backbone, in_dim),
            config.out_dim,
            hidden_dim=config.hidden_dim,
            bottleneck_dim=config.bottleneck_dim,
            layers=config.head_layers,
            norm_last_layer=config.norm_last_layer,
            generator=Generator().manual_seed(seed),
        )
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        sharpness = {"student_temp": config.student_temp, "center_momentum": config.center_momentum}
        self.criterion = DINOLoss(config.out_dim, **sharpness)
        check_tokens(backbone, config)
        self.patch_criterion = PatchLoss(config.out_dim, **sharpness) if config.patch_loss else None
        self.mask_token = nn.Parameter(torch.zeros(1, token_width(backbone))) if config.patch_loss else None
        self._seed, self._rows, self._encode = seed, 0, encode
        self._step = self.steps_done = 0
        self.whole: Callable[[nn.Module], nn.Module] = _identity
        self._monitored_images: Tensor | None = None
        self._part_norms: dict[str, Tensor] = {}
        self.train()

    def train(self, mode: bool = True) -> "DINO":
        """Set the student's mode. The teacher stays in evaluation mode, without dropout and drop path."""
        super().train(mode)
        self.model.eval()
        self.teacher_head.eval()
        return self

    def forward(self, crops: Sequence[Float[Tensor, "b c _h _w"]]) -> dict[str, Float[Tensor, ""]]:
        """Return the loss of a batch and the mean entropy of the targets, both in nats.

        With a patch loss, the student's global crops are masked, and the loss's two parts are named besides:
        `image_loss`, that of the whole images' features, and `patch_loss` without its weight.

        Args:
            crops: several crops of one batch of images. The global crops, which the teacher sees, come first.
                Consecutive crops of one size go through the backbone together.

        Raises:
            InputError: if there are too few crops.
        """
        for_teacher = crops[: self.config.global_crops]
        if len(crops) < 2 or len(for_teacher) < self.config.global_crops:
            raise InputError(
                f"{len(crops)} crops: DINO needs the teacher's {self.config.global_crops} and compares two or more"
            )
        patch_loss: Tensor | None = None
        if self.patch_criterion is None:
            with torch.no_grad():
                teacher = self.teacher_head(self._features(self.model, for_teacher))
            student = self.student_head(self._features(self.student, crops))
        else:
            teacher, student, patch_loss = self._with_patches(crops, for_teacher, self.patch_criterion)
        teacher, student = teacher.chunk(len(for_teacher)), student.chunk(len(crops))
        targets = self.criterion.targets(teacher, teacher_temp=self.schedules.teacher_temp(self._step))
        loss = self.criterion.cross_entropy(student, targets)
        parts: dict[str, Tensor] = {}
        if patch_loss is not None:
            parts = {"image_loss": loss, "patch_loss": patch_loss}
            loss = loss + self.config.patch_loss * patch_loss
        if self.training:
            self.criterion.observe(teacher)
            self._monitored_images = crops[0][:MAX_IMAGES]
        return {"loss": loss, **parts, "teacher_entropy": torch.special.entr(targets).sum(-1).mean()}

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Set the temperature of a step, counted from 0, and the weight decay of the groups that decay."""
        self._step, self._rows = step, 0
        decay = self.schedules.weight_decay(step)
        for group in optimizer.param_groups:
            if group["weight_decay"]:
                group["weight_decay"] = decay * group.get("wd_scale", 1.0)

    @torch.no_grad()
    def before_update(self, step: int) -> dict[str, Float[Tensor, ""]]:
        """Freeze the prototypes in the first epochs, clip gradients, and return their global norm before clipping."""
        if self.schedules.epoch(step) < self.config.freeze_last_layer:
            drop_gradients_(self.student_head.last_layer)
        named = [(name, p) for name, p in self.named_parameters() if p.grad is not None]
        norms = clip_([parameter for _, parameter in named], self.config.clip, self.config.clip_norm)
        if self._is_monitored(step):
            self._part_norms = part_norms([name for name, _ in named], norms)
        return {"grad_norm": torch.linalg.vector_norm(norms)}

    @torch.no_grad()
    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """Update the teacher and the centre, and every `watch_every` steps measure the teacher's collapse.

        Returns:
            The measurement as JSON, with `stop` and `remedy` if the run is to end; None at other steps.
        """
        pairs = ((self.model, self.student), (self.teacher_head, self.student_head))
        teacher: list[Tensor] = [parameter for module, _ in pairs for parameter in module.parameters()]
        student: list[Tensor] = [parameter for _, module in pairs for parameter in module.parameters()]
        moved, towards = local_shards(teacher), local_shards(student)  # sharded in the same way
        torch._foreach_lerp_(moved, towards, 1 - self.schedules.momentum(step))  # pyright: ignore[reportPrivateImportUsage]
        self.criterion.update_center_()
        if self.patch_criterion is not None:
            self.patch_criterion.update_center_()
        self.steps_done = step + 1
        return self._monitor_collapse(step) if self._is_monitored(step) else None

    def teacher_state_dict(self) -> dict[str, Tensor]:
        """Return the weights of the teacher's backbone, for timm's ViT of the same shape (`num_classes=0`)."""
        return dict(self.model.state_dict())

    def compile_backbones_(self, **kwargs: Any) -> "DINO":
        """Compile both backbones in place, with the keywords of `torch.compile`. Parameter names do not change."""
        self.student.compile(**kwargs)
        self.model.compile(**kwargs)
        self._encode = torch.compile(encode, **kwargs)
        return self

    def _features(self, backbone: nn.Module, crops: Sequence[Tensor]) -> Float[Tensor, "b d"]:
        """Return the features in the order of the crops; consecutive crops of one size share a forward pass."""
        runs = [torch.cat(list(run)) for _, run in groupby(crops, key=lambda crop: crop.shape[1:])]
        if self.config.pooling == "class":
            return torch.cat([backbone(images) for images in runs])
        return torch.cat([self._encode(backbone, images, self.config.pooling)[0] for images in runs])

    def _with_patches(
        self, crops: Sequence[Tensor], for_teacher: Sequence[Tensor], criterion: PatchLoss
    ) -> tuple[Float[Tensor, "t k"], Float[Tensor, "s k"], Float[Tensor, ""]]:
        """Return outputs of the teacher and of the student, whose global crops are masked, and the loss at patches.

        The head is linear after its bottleneck: the mean of the teacher's outputs at all patches is the output at the
        mean of their bottlenecks. So there need be no outputs but at masked patches.
        """
        if len({crop.shape[1:] for crop in for_teacher}) > 1:
            raise InputError("patch_loss: global crops of several sizes cannot be masked; give them one size")
        images, local, pooling = torch.cat(list(for_teacher)), crops[len(for_teacher) :], self.config.pooling
        masks = self._masks(for_teacher).to(images.device)
        with torch.no_grad():
            feature, patches = self._encode(self.model, images, pooling)
            patches = self.teacher_head.bottleneck(patches)
            wanted = [self.teacher_head.bottleneck(feature), patches.flatten(0, 1)[masks.index], patches.mean(1)]
            teacher, expected, means = self.teacher_head.last_layer(torch.cat(wanted)).split(list(map(len, wanted)))
            if self.training:
                criterion.observe(means)
        feature, patches = self._encode(self.student, images, pooling, masks.masked, self.mask_token)
        features = torch.cat([feature, self._features(self.student, local)]) if local else feature
        wanted = [features, patches.flatten(0, 1)[masks.index]]
        student, found = self.student_head(torch.cat(wanted)).split(list(map(len, wanted)))
        temperature = self.schedules.teacher_patch_temp(self._step)
        return teacher, student, criterion(found, expected, masks.weights, teacher_temp=temperature)

    def _masks(self, for_teacher: Sequence[Float[Tensor, "b c _h _w"]]) -> Masks:
        """Draw the masks of a micro-batch: an image's depend on its place in the whole batch of the step alone."""
        shared = dist.is_available() and dist.is_initialized()
        rank, processes = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
        count = len(for_teacher[0])
        first = self._rows * processes + rank  # as `skipless.data.loading.loader.Order` shares a batch out
        rows = range(first, first + count * processes, processes)
        if self.training:
            self._rows += count
        grid = grid_of(self.model, for_teacher[0])
        drawn = draw_masks(self.config, grid, seed=self._seed, step=self._step, rows=rows, crops=len(for_teacher))
        return Masks.of(drawn)

    def _is_monitored(self, step: int) -> bool:
        return bool(self.config.watch_every) and (step + 1) % self.config.watch_every == 0

    def _monitor_collapse(self, step: int) -> Mapping[str, Any] | None:
        if self._monitored_images is None:
            return None
        dtype = next(self.teacher_head.parameters()).dtype  # under mixed precision the images are in half precision
        tokens = class_tokens(self.whole(self.model), self._monitored_images.to(dtype), self.config.pooling)
        outputs = self.criterion.targets(
            [self.whole(self.teacher_head)(tokens[-1])], teacher_temp=self.schedules.teacher_temp(step)
        )
        found = measure_collapse(tokens, outputs[0], self._part_norms)
        judged = step + 1 > self.config.watch_after * self.schedules.steps_per_epoch
        fault = found.diagnosis() if judged else None
        if fault is None:
            return found.as_json()
        stop = {"stop": fault, "remedy": REMEDY} if self.config.on_collapse == "stop" else {}
        return {**found.as_json(), "fault": fault, **stop}


def _identity(module: nn.Module) -> nn.Module:
    return module


def _set_drop_path_(backbone: nn.Module, rate: float) -> nn.Module:
    """Set drop path on the branches with a skip connection, with rates that rise linearly over depth."""
    if not rate or not any(hasattr(module, "drop_path1") for module in backbone.modules()):
        return backbone
    views = block_views(backbone)
    for index, view in enumerate(views):
        own = rate * index / max(len(views) - 1, 1)
        for sub_block, name in (("attn", "drop_path1"), ("mlp", "drop_path2")):
            if sub_block in view.skips and own:
                setattr(view.block, name, DropPath(own))
    return backbone


def _size_of_images(backbone: nn.Module) -> tuple[int, int] | None:
    """The one size of images that a vision transformer takes; None if it takes others, or nobody knows."""
    try:
        found = find_vit(backbone)
    except InputError:
        return None
    return None if found.any_size else found.image_size


def _feature_width(backbone: nn.Module, in_dim: int | None) -> int:
    """Return the width of a backbone's features, and refuse backbones that DINO cannot train."""
    kind = type(backbone).__name__
    if getattr(backbone, "num_classes", 0):
        raise InputError(f"`{kind}` keeps a classifier of {backbone.num_classes} classes; build it with num_classes=0")
    if getattr(backbone, "dynamic_img_size", True) is False:
        raise InputError(f"`{kind}` takes one image size only; build it with dynamic_img_size=True for local crops")
    if _size_of_images(backbone) is not None:
        raise InputError(
            f"`{kind}` takes images of {_size_of_images(backbone)} only; DINO's crops have several sizes: take a "
            "backbone that embeds any"
        )
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        raise InputError(
            f"`{kind}` has BatchNorm, whose running statistics the teacher, a mean of weights, would never have; take "
            "a backbone without it"
        )
    width = in_dim or getattr(backbone, "num_features", None)
    if not isinstance(width, int):
        raise InputError(f"`{kind}` does not say how wide its features are (num_features); give in_dim")
    return width
