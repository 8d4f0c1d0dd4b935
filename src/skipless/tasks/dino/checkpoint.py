"""Weights of teachers: the published DINO checkpoints as timm's ViT takes them."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from skipless.errors import InputError

Network = Literal["teacher", "student"]

_PREFIXES = ("module.", "backbone.")

# What a published training checkpoint holds beside tensors: its arguments, and learning rates as numpy's numbers.
# They are data; nothing else is unpickled. Old files name numpy's own modules as they were then.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_ALLOWED: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float64DType,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_dino_checkpoint(path: Path | str, network: Network = "teacher") -> dict[str, Tensor]:
    """Read a `.pth` file of facebookresearch/dino: the weights of a backbone, as timm's ViT names them.

    Both kinds of file serve: `..._pretrain.pth` (one backbone) and `..._full_checkpoint.pth` or a run's
    `checkpoint.pth` (teacher and student with their heads, which are dropped). Load them with
    `timm.create_model("vit_small_patch16_224", num_classes=0).load_state_dict(...)`.

    Args:
        path: the file.
        network: which of the two; published numbers are the teacher's.

    Raises:
        InputError: if there is no such file, or it is damaged, or no such checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no checkpoint at {str(path)!r}; give the path of a .pth file of DINO's")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{str(path)!r} cannot be read as weights ({reason}); download it again") from error
    weights = loaded.get(network, loaded) if isinstance(loaded, Mapping) else {}
    named = {_strip_prefixes(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    found = {name: value for name, value in named.items() if not name.startswith("head.")}
    if "patch_embed.proj.weight" not in found:
        held = ", ".join(map(str, list(weights)[:4])) or type(loaded).__name__
        raise InputError(f"{str(path)!r} is no checkpoint of a DINO ViT: it holds {held}; give one with a {network}")
    return found


def _strip_prefixes(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
