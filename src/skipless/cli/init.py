"""`skipless init`."""

from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from skipless.init import PRESETS, SkiplessInit
from skipless.models import create_model, inspect_init
from skipless.recipes.exported import note_of
from skipless.training import save_weights
from skipless.training.checkpoint import check_weights_name
from skipless.training.files import ready_folder

Preset = Literal["vit_base", "dino_vit_small", "language"]


def init(
    model: Positional[str],
    *,
    out: Path | None = None,
    preset: Preset | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    c: float | None = None,
    factors: Literal["per_head", "sliced", "partition"] = "per_head",
    noise: Literal["normal", "uniform"] = "normal",
    logit_scale: Literal["kept", "compensated"] = "kept",
    seed: int = 0,
) -> None:
    """Initialise a timm model without skips, print what `inspect_init` says of it, and write its weights.

    Args:
        model: timm's name, vit_base_patch16_224.
        out: where to write the weights, a safetensors file that timm and PyTorch load.
        preset: the paper's values: vit_base (2, 0.6, 3; the default), dino_vit_small (1.8, 1, 3) or language (0, 0.5).
        alpha: scale of Z, instead of the preset's.
        beta: scale of I, instead of the preset's.
        c: scale of W_V and W_O, instead of the preset's.
        factors: how W_Q W_K^T is cut into heads.
        noise: distribution of Z.
        logit_scale: whether W_Q makes up for the 1 / sqrt(d_h) of the softmax.
        seed: of the weights.
    """
    if out is not None:
        check_weights_name(out)
        ready_folder(out.parent)
    values = {name: value for name, value in (("alpha", alpha), ("beta", beta), ("c", c)) if value is not None}
    named: dict[str, Any] = {"factors": factors, "noise": noise, "logit_scale": logit_scale}
    scheme = SkiplessInit(**{**vars(PRESETS[preset or "vit_base"]), **named, **values})
    made = create_model(model, init=scheme, seed=seed)
    print(inspect_init(made, scheme))
    if out is not None:
        save_weights(made, out, note=note_of(f"skipless_{model}", trained=False))
        print(f"wrote {out}")
