"""`skipless measure`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from skipless.choices import Device, SpectrumMethod, TokensAt
from skipless.cli.call import call
from skipless.errors import InputError
from skipless.options import Option, stated_command


def main(words: list[str]) -> None:
    """Measure the conditioning of a model's Jacobians."""
    lines = (
        "skipless measure runs/s1 --blocks 0 4 7 11",
        "skipless measure skipless_vit_small_patch16_224 --tokens 8 --out conditioning/",
    )
    call(measure, words, prog="skipless measure", examples=lines)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, of which model, and where.

    Attributes:
        model: a run folder of skipless train, of a language model too; a folder that Hugging Face's save_pretrained has
            written; timm's name of a vision transformer, skipless_vit_small_patch16_224 too; or torchvision:vit_b_16.
        blocks: counted from 0: 0 4 7 11.
        images: how many images to measure at, or texts of a language model, each by itself; the table has the median.
        data: digits, fashion, or a folder of images; of a language model, a text, as for skipless train language.
        weights: other weights than the run's last, or those of the timm model: a safetensors file.
        pretrained: take timm's pretrained weights.
        untrained: measure a run's model as it was before its first step.
        full: measure K^ of the MLP as well, and K both with and without the identity, whatever skips there are.
        network: measure kappa(J J^T) of the whole network as well (Table 5), at --rows.
        rows: images, tokens and features whose rows of J are taken.
        at: take K at the tokens after the norm, before it, or at N(0, I) tokens, which the paper's theory supposes.
        tokens: give the attention so many of its tokens only, spread evenly; of a language model, the length of a text.
        dtype: float64 measures a copy in double precision.
        method: how singular values are found; see skipless.conditioning.spectrum.
        iterations: of Lanczos at most; about kappa / 3 are needed.
        seed: of weights that are drawn, of pixels and of Lanczos.
        device: where to compute.
        out: folder for conditioning.json, conditioning.png and a page, conditioning.html.
    """

    model: Annotated[str, Option(positional=True)]
    blocks: Annotated[tuple[int, ...] | None, Option("every block")] = None
    images: int = 1
    data: Annotated[str | None, Option("the run's own; random pixels or ids for others", group="data")] = None
    weights: Annotated[Path | None, Option("the run's last", group="model")] = None
    pretrained: Annotated[bool, Option(group="model")] = False
    untrained: Annotated[bool, Option(group="model")] = False
    full: bool = False
    network: bool = False
    rows: tuple[int, int, int] = (4, 4, 8)
    at: TokensAt = "normed"
    tokens: Annotated[int | None, Option("all; 64 of a language model")] = None
    dtype: Annotated[Literal["float32", "float64"] | None, Option("the model's")] = None
    method: SpectrumMethod = "auto"
    iterations: int = 1000
    seed: int = 0
    device: Annotated[Device, Option(group="machine")] = "auto"
    out: Annotated[Path | None, Option("none is written", group="output")] = None


def measure(asked: Options) -> None:
    """Measure the conditioning of a model's Jacobians: kappa of every block, with and without its skip.

    Prints a table, and with --out writes it as JSON with a picture of kappa by depth. Its column k(K K^T), or of models
    with skips k((K+I)(K+I)^T), has what the paper's Table 6 has.
    """
    from skipless.recipes import open_model
    from skipless.report.write_files import drawing
    from skipless.training.run_folder.atomic import check_writable

    if asked.untrained and asked.weights is not None:
        raise InputError(f"--untrained and --weights {str(asked.weights)!r}: give one of them")
    source = open_model(
        asked.model,
        weights=asked.weights,
        pretrained=asked.pretrained,
        untrained=asked.untrained,
        seed=asked.seed,
    )
    if asked.out is not None:  # what cannot be drawn or written is told before the work
        drawing("skipless.report.pictures.kappa_figure")
        check_writable(asked.out)
    count = max(asked.images, asked.rows[0]) if asked.network else asked.images
    if source.context is None:
        given, named = _pixels(source, count, asked.data, asked.seed)
    else:
        given, named = _ids(source, count, asked.data, asked.tokens, asked.seed)
    found = _measured(source.model, given, asked)
    print(f"{source.name}, {'trained' if source.trained else 'not trained'}, {named}\n{found}")
    if asked.out is not None:
        about = {"model": source.name, "trained": source.trained, "data": named}
        _write(asked, {**about, **found.as_json()}, f"{source.name}, {named}", source.model, found.tables())


def _measured(model: Any, given: Any, asked: Options) -> Any:
    import torch

    from skipless.conditioning.measurement.measure import measure_conditioning
    from skipless.conditioning.measurement.network_jacobian import Rows
    from skipless.training.processes.launch import launch

    fabric = launch(asked.device, "fp32")
    if any(one.dtype in (torch.float16, torch.bfloat16) for one in model.parameters()):
        model = model.float()  # in half precision small singular values are rounding noise
    text = given.ndim == 2
    return measure_conditioning(
        fabric.to_device(model),
        fabric.to_device(given),
        blocks=asked.blocks,
        parts=("attn", "mlp", "maps", "tokens") if asked.full else ("attn", "maps", "tokens"),
        forms="both" if asked.full else "own",
        at=asked.at,
        tokens=None if text else asked.tokens,
        network=Rows(*asked.rows) if asked.network else None,
        dtype=None if asked.dtype is None else getattr(torch, asked.dtype),
        method=asked.method,
        max_iterations=asked.iterations,
        seed=asked.seed,
        progress=lambda line: print(line, file=sys.stderr),
    )


def _write(asked: Options, values: Mapping[str, Any], title: str, model: Any, tables: Any) -> None:
    from skipless.report.labels import in_full
    from skipless.report.pages.measurement_page import measurement_page
    from skipless.report.pages.write_page import write_report
    from skipless.report.write_files import drawing
    from skipless.training.run_folder.provenance import provenance

    picture = drawing("skipless.report.pictures.kappa_figure").depth_figure(_series(values["blocks"]), "kappa", title)
    given = {name: value for name, value in vars(asked).items() if name != "model"}
    command = stated_command(("skipless", "measure", asked.model), Options, given)
    settings = {name: in_full(value) for name, value in given.items()}
    made = provenance(next(model.parameters()).device)
    page = measurement_page(values, tables, made=made, command=command, picture=picture, settings=settings)
    assert asked.out is not None
    files = write_report(asked.out, "conditioning", {"conditioning.json": values, "conditioning.png": picture}, page)
    print("\n".join(f"wrote {path}" for path in files.values()))


def _pixels(source: Any, count: int, data: str | None, seed: int) -> tuple[Any, str]:
    """Images, and what they are in words."""
    import torch

    from skipless.conditioning.measurement.tracking import first_images
    from skipless.data import ImageConfig, load_images
    from skipless.models.vit_view import find_vit

    if count < 1:
        raise InputError(f"--images {count}: give at least 1")
    found = find_vit(source.model)
    if found.image_size is None:
        raise InputError(f"{source.name!r} does not say of which size its images are; it cannot be measured by name")
    height, width = found.image_size
    if source.recipe is None and data is None:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randn(count, found.channels, height, width, generator=generator)
        return pixels, f"{count} image{'s' if count > 1 else ''} of N(0, 1) pixels"
    if source.recipe is None and height != width:
        raise InputError(f"{source.name!r} takes images of {height} x {width}; --data has square ones: leave it out")
    config = (
        ImageConfig(data or "", image_size=height)
        if source.recipe is None
        else source.recipe.with_(data__data=data).data
    )
    words = f"{count} validation image{'s' if count > 1 else ''} of {config.data}"
    return first_images(load_images(config), count), words


TEXT_LENGTH = 64  # tokens: K of a text of d = 64 is then 4,096 x 4,096


def _ids(source: Any, count: int, data: str | None, tokens: int | None, seed: int) -> tuple[Any, str]:
    """Token ids of held-out text, or random ones, and what they are in words."""
    import torch

    from skipless.display.values import counted, place_name
    from skipless.models.text_view import find_text
    from skipless.recipes.language import held_out_windows
    from skipless.studies.language.subject import subject

    length = min(source.context, TEXT_LENGTH) if tokens is None else tokens
    if count < 1 or length < 2:
        raise InputError(f"--images {count} --tokens {length}: give at least 1 text of at least 2 tokens")
    if source.recipe is None and data is None:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(find_text(source.model).vocabulary, (count, length), generator=generator)
        return ids, f"{counted(count, 'text')} of {length} random token ids"
    text = subject(source).text(data, None)
    words = f"{counted(count, 'held-out text')} of {length} tokens of {place_name(text.source)}"
    return held_out_windows(text, count, length), words


def _series(blocks: list[Mapping[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    """kappa by depth, a line an operator."""
    from skipless.report.condition_number import number

    series: dict[str, list[tuple[int, Any]]] = {}
    for block in blocks:
        for part, forms in (
            ("attn", {"skipless": "K", "skip": "K + I"}),
            ("mlp", {"skipless": "K^", "skip": "K^ + I"}),
        ):
            for form, name in forms.items():
                if (found := block[part].get(form)) is not None:
                    series.setdefault(name, []).append((block["index"], number(found["kappa"])))
    return series
