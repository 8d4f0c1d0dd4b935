"""`skipless init`."""

from pathlib import Path
from typing import Annotated, Any

from skipless.choices import Factors, LogitScale, Noise, Preset
from skipless.cli.call import call
from skipless.options import Option


def main(words: list[str]) -> None:
    """Initialise a model without skips."""
    lines = (
        "skipless init vit_base_patch16_224 --out w.safetensors",
        "skipless init vit_small_patch16_224 --preset dino_vit_small",
        "skipless init vit_small_patch16_224 --ours",
    )
    call(init, words, prog="skipless init", examples=lines)


def init(
    model: Annotated[str, Option(positional=True)],
    *,
    out: Annotated[Path | None, Option("none is written", group="output")] = None,
    preset: Preset = "vit_base",
    ours: bool = False,
    alpha: Annotated[float | None, Option("the preset's")] = None,
    beta: Annotated[float | None, Option("the preset's")] = None,
    c: Annotated[float | None, Option("the preset's")] = None,
    factors: Factors = "per_head",
    noise: Noise = "normal",
    logit_scale: LogitScale = "kept",
    seed: int = 0,
) -> None:
    """Initialise a timm model without skips, print what `inspect_init` says of it, and write its weights.

    Args:
        model: timm's name, vit_base_patch16_224.
        out: where to write the weights, a safetensors file that timm and PyTorch load.
        preset: the paper's values: vit_base (2, 0.6, 3), dino_vit_small (1.8, 1, 3) or language (0, 0.5).
        ours: take our initialisation, which suits the model's width and depth, instead of a preset.
        alpha: scale of Z.
        beta: scale of I.
        c: scale of W_V and W_O.
        factors: how W_Q W_K^T is cut into heads.
        noise: distribution of Z.
        logit_scale: whether W_Q makes up for the 1 / sqrt(d_h) of the softmax.
        seed: of the weights.
    """
    from skipless.init import PRESETS, SkiplessInit
    from skipless.models import create_model, inspect_init
    from skipless.training import save_weights
    from skipless.training.run_folder.atomic import check_writable
    from skipless.training.run_folder.checkpoint import check_safetensors_name

    if out is not None:
        check_safetensors_name(out)
        check_writable(out.parent)
    values = {name: value for name, value in (("alpha", alpha), ("beta", beta), ("c", c)) if value is not None}
    named: dict[str, Any] = {"factors": factors, "noise": noise, "logit_scale": logit_scale}
    base = SkiplessInit.for_model(create_model(model)) if ours else PRESETS[preset]
    scheme = SkiplessInit(**{**vars(base), **named, **values})
    made = create_model(model, init=scheme, seed=seed)
    print(inspect_init(made, scheme))
    if out is not None:
        save_weights(made, out, note=_note(model, made))
        print(f"wrote {out}")


def _note(name: str, model: Any) -> dict[str, str]:
    """What the file says of itself; what a pretrained tag says of images goes with it, the tag does not."""
    from skipless.models.vit_view import find_vit
    from skipless.recipes.export import note_of

    bare, _, tag = name.partition(".")
    found = find_vit(model) if tag else None
    return note_of(f"skipless_{bare}", statistics=None if found is None else (found.mean, found.std), trained=False)
