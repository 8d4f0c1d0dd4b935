"""Reading the published DINO checkpoints into timm's ViT."""

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

# Besides tensors, a published training checkpoint holds its arguments and learning rates as numpy scalars. Nothing else
# is unpickled. Old files use numpy's module names of their time.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_ALLOWED: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float64DType,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_dino_checkpoint(path: Path | str, network: Network = "teacher") -> dict[str, Tensor]:
    """Read the weights of a backbone from a `.pth` file of facebookresearch/dino, with the names of timm's ViT.

    Two kinds of files can be read: `..._pretrain.pth` (one backbone), and `..._full_checkpoint.pth` or a run's
    `checkpoint.pth` (teacher and student with their heads, which are dropped). Load the weights with
    `timm.create_model("vit_small_patch16_224", num_classes=0).load_state_dict(...)`.

    Args:
        path: the file.
        network: teacher or student; the published results are the teacher's.

    Raises:
        InputError: if there is no such file, it is damaged, or it is not a DINO checkpoint.
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
