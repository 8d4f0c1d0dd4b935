"""measure_conditioning measures Tables 5 and 6 and Figure 6 in any model at any images."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipless.choices import SpectrumMethod, TokensAt
from skipless.conditioning.measurement.block_inputs import (
    BlockInputs,
    attention_maps,
    block_inputs,
    select_blocks,
    token_distribution,
)
from skipless.conditioning.measurement.conditioning_report import (
    BlockConditioning,
    ConditioningReport,
    HeadMaps,
    ImageSpectra,
)
from skipless.conditioning.measurement.network_jacobian import Rows, evenly_spaced, network_conditioning
from skipless.conditioning.operators.given import as_dtype, chosen, dtype_at, is_text
from skipless.conditioning.operators.jacobian import attn_jacobian, mlp_jacobian
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.operators.validate import check_input, check_weights
from skipless.conditioning.spectra.dense import matrix_spectrum
from skipless.conditioning.spectra.spectrum import spectrum
from skipless.errors import InputError
from skipless.models.blocks import BlockView, SubBlock
from skipless.models.calls import PLAIN
from skipless.models.starting.first_tokens import Given
from skipless.precision import full_precision

Forms = Literal["both", "own"]
Part = Literal["attn", "mlp", "maps", "tokens"]
Progress = Callable[[str], object]


@torch.inference_mode(False)
@full_precision()
def measure_conditioning(
    model: nn.Module,
    images: Given | None = None,
    *,
    inputs: Int[Tensor, "b n"] | None = None,
    blocks: Sequence[int] | None = None,
    parts: Sequence[Part] = get_args(Part),
    forms: Forms = "both",
    at: TokensAt = "normed",
    tokens: int | None = None,
    network: Rows | None = None,
    dtype: torch.dtype | None = None,
    method: SpectrumMethod = "auto",
    max_iterations: int = 1000,
    inverse_rows: int = 8192,
    seed: int = 0,
    progress: Progress | None = None,
) -> ConditioningReport:
    """Measure the Jacobians of sections 4 and 5 in a model at some images or texts (Tables 5 and 6, Figure 6).

    K_l is the Jacobian of the attention alone, at the tokens that it receives in a forward pass of the model. The norm
    before it is left out, because with LayerNorm K_l is singular. Each image is measured by itself, and the report
    shows the median image. The model and torch's random state are left unchanged.

    Small models take seconds, with a dense SVD. A block of ViT-S is 75,648 x 75,648: Lanczos takes seconds where K_l is
    well conditioned. Where it is not, Lanczos takes a minute or two and returns a lower bound of kappa.

    Args:
        model: a model with blocks that an adapter knows, float32 or float64.
        images: normalised as the model expects them.
        inputs: token ids of a language model instead, a text a row: `tokenizer(text, return_tensors="pt").input_ids`,
            or windows of a run's text, `torch.from_numpy(split.ids[:n].astype("int64"))[None]`. Rows have one length
            and no padding. All operators are then those under the model's causal mask and rotary positions; K_l is
            block triangular. Hugging Face's eager attention has its softmax in float32 whatever the dtype, as RMSNorm
            is: `model.set_attn_implementation("sdpa")` resolves large kappas of K_l in float64.
        blocks: positions of blocks, such as `(0, 4, 7, 11)`; negative ones count from the end; all by default.
        parts: which of `"attn"` (K_l), `"mlp"` (K^_l), `"maps"` (kappa and diagonals of the attention maps) and
            `"tokens"` (Figure 6) to measure.
        forms: `"both"` measures K and K + I; `"own"` only the one that the model has, K + I where there is a skip.
        at: the tokens at which both sub-blocks are differentiated. `"normed"`: the tokens after the norm, which the
            sub-block really receives. `"raw"`: the tokens before the norm; the paper writes K_l at x^_(l-1) and has no
            norm in its formulas, so either may be meant. `"gaussian"`: as many N(0, I) tokens, the assumption of A.4.1;
            tokens of a real model are less and less like that with depth, and kappa grows.
        tokens: keep only this many tokens, spaced evenly from the first; all by default. K_l of ViT-S has 75,648 rows,
            and the paper does not say how it handled them. With few tokens the softmax has few entries, and kappa is
            smaller. Attention maps and Figure 6 always use all tokens.
        network: rows of J at which to measure kappa(J J^T), too.
        dtype: `torch.float64` measures a copy in float64; by default the model's own precision.
        method, max_iterations, inverse_rows: see `spectrum`.
        seed: seed of iterative methods and of Gaussian tokens.
        progress: called with a line of text after each operator: which one, at which image, and its kappa.

    Raises:
        InputError: if no adapter knows the model; if there are no images, or images or weights are not finite, in half
            precision or on the meta device; if a choice is unknown.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=2, seed=0)
        >>> report = measure_conditioning(model, torch.randn(1, 3, 32, 32), blocks=[1], parts=["attn"])
        >>> report.blocks[0].attn["skip"].kappa.value < 2 < 1000 < report.blocks[0].attn["skipless"].kappa.value
        True

        Of a language model:

        >>> from skipless.models import create_hf_model
        >>> sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
        >>> model = create_hf_model("LlamaForCausalLM", init="ours", seed=0, vocab_size=40, **sizes)
        >>> measure_conditioning(model, inputs=torch.arange(8)[None], blocks=[0]).kind
        'text'
    """
    _check_choices(parts, forms, at, dtype, tokens)
    select_blocks(model, blocks)  # first, so that an unknown model is reported before its weights
    check_weights(model, "")
    given = chosen(images, inputs)
    if not is_text(given):
        check_input(given, "images")
    if dtype is not None and any(p.dtype != dtype for p in model.parameters()):
        model, given = copy.deepcopy(model).to(dtype), as_dtype(given, dtype)

    def measure(operator: LinearOperator, image: int, count: int) -> Any:
        found = spectrum(operator, method=method, max_iterations=max_iterations, inverse_rows=inverse_rows, seed=seed)
        if progress is not None:
            where = f", image {image} of {count}" if count > 1 else ""
            progress(f"{operator.name}{where}: kappa {found.kappa}")
        return found

    devices = [given.device] if given.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        found = tuple(
            _block(each, parts, forms, at, tokens, seed, measure) for each in block_inputs(model, given, blocks)
        )
        whole = None
        if network is not None:
            whole = network_conditioning(model, given, network, seed=seed, steps=max_iterations)
    precision = str(dtype_at(model, given)).removeprefix("torch.")
    kind = "text" if is_text(given) else "image"
    return ConditioningReport(found, whole, at, tokens, len(given), precision, seed, kind)


def _block(
    found: BlockInputs,
    parts: Sequence[Part],
    forms: Forms,
    at: TokensAt,
    tokens: int | None,
    seed: int,
    measure: Callable[[LinearOperator, int, int], Any],
) -> BlockConditioning:
    view = found.view
    if at == "gaussian":
        generator = torch.Generator().manual_seed(seed)
        attn_x, mlp_x = (torch.randn(x.shape, generator=generator).to(x) for x in (found.attn, found.mlp))
    else:
        attn_x, mlp_x = (found.attn, found.mlp) if at == "normed" else (found.attn_raw, found.mlp_raw)

    if "attn" in parts and tokens is not None:
        _check_places(view, tokens)

    def measured(part: str, make: Callable[..., LinearOperator], x: Tensor) -> dict[str, ImageSpectra]:
        own = part in view.skips
        wanted = {"both": (False, True), "own": (own,)}[forms] if part in parts else ()
        return {
            "skip" if skip else "skipless": ImageSpectra(
                tuple(
                    measure(make(view, image, skip), number, len(x))
                    for number, image in enumerate(_subsample(x, tokens), 1)
                )
            )
            for skip in wanted
        }

    distributions: tuple[tuple[Tensor, SubBlock], ...] = ((found.attn, "attn"), (found.mlp, "mlp"))
    return BlockConditioning(
        index=found.index,
        name=view.name,
        skips=view.skips,
        attn=measured("attn", attn_jacobian, attn_x),
        mlp=measured("mlp", mlp_jacobian, mlp_x),
        heads=_attention_map_spectra(found) if "maps" in parts else None,
        tokens=tuple(token_distribution(x, view.name, part) for x, part in distributions if "tokens" in parts),
    )


def _check_places(view: BlockView, tokens: int) -> None:
    """Refuse some tokens where attention depends on the places of all."""
    if view.context is not PLAIN:
        raise InputError(
            f"tokens={tokens}: the attention of {view.name} takes tokens in their places (rotary positions, biases), "
            "so all of them: tokens=None, or smaller images"
        )


def _subsample(x: Float[Tensor, "b n d"], tokens: int | None) -> Float[Tensor, "b m d"]:
    """So many tokens of each image, evenly spaced; None keeps all."""
    if tokens is None:
        return x
    if tokens > x.shape[1]:
        raise InputError(f"tokens={tokens}: the model has {x.shape[1]}")
    return x[:, list(evenly_spaced(tokens, x.shape[1]))]


def _attention_map_spectra(found: BlockInputs) -> tuple[HeadMaps, ...] | None:
    """Diagonal and spectra of each head's attention maps, always of the real forward pass, whatever `at` is."""
    maps = attention_maps(found.view, found.attn)
    if maps is None:
        return None
    diagonals = maps.diagonal(dim1=-2, dim2=-1).mean((0, 2)).tolist()
    by_head = maps.transpose(0, 1)
    return tuple(
        HeadMaps(diagonal, ImageSpectra(tuple(matrix_spectrum(head, name=f"A of {found.view.name}, head {index}"))))
        for index, (diagonal, head) in enumerate(zip(diagonals, by_head, strict=True))
    )


def _check_choices(parts: Sequence[str], forms: str, at: str, dtype: torch.dtype | None, tokens: int | None) -> None:
    if tokens is not None and tokens < 1:
        raise InputError(f"tokens={tokens}: give at least 1, or None for all")
    for name, value, known in (("forms", forms, get_args(Forms)), ("at", at, get_args(TokensAt))):
        if value not in known:
            raise InputError(f"{name}={value!r} is not one of {', '.join(map(repr, known))}")
    if isinstance(parts, str) or not set(parts) <= set(get_args(Part)):
        raise InputError(f"parts={parts!r}: give a list of {', '.join(map(repr, get_args(Part)))}")
    if dtype not in (None, torch.float32, torch.float64):
        raise InputError(f"dtype={dtype}: half precision hides the small singular values; give torch.float64, or None")
