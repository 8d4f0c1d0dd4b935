"""Hugging Face's models by name: built from a configuration, or loaded from a folder, with skips or without."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.choices import Positions
from skipless.errors import InputError, did_you_mean
from skipless.init import SkiplessInit
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.attention_config import AttentionConfig
from skipless.models.blocks import SubBlock
from skipless.models.libraries.finish import SOFTMAX, finish_
from skipless.models.libraries.hf_shards import check_shards
from skipless.models.libraries.hf_tokenizer import check_vocabulary
from skipless.models.surgery import remove_skips_
from skipless.optional import how_to_install, is_installed

# What the library raises for fields, folders and weights that it cannot use.
_ERRORS = (TypeError, ValueError, KeyError, AssertionError, ArithmeticError, RuntimeError, OSError)


def create_hf_model(
    name: str,
    *,
    skip: bool = False,
    init: SkiplessInit | Literal["ours"] | None = None,
    positions: Positions = "kept",
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    attention: AttentionConfig = SOFTMAX,
    skip_gain: float = 1.0,
    blank: bool = False,
    seed: int | None = None,
    **config: Any,
) -> nn.Module:
    """Create one of Hugging Face's models with new weights: with skips, without skips, or without and initialised.

    Args:
        name: the class, `"LlamaForCausalLM"` or `"ViTForImageClassification"`.
        skip: keep the skips.
        init: the scheme; `"ours"` is `SkiplessInit.for_model`, and None leaves the library's own initialisation.
        positions: without `init`, what position embeddings and prefix tokens start as; a scheme has its own.
        sub_blocks: the sub-blocks whose skips are left out if `skip` is False.
        attention: what stands for the softmax.
        skip_gain: what the skips of the last block multiply their tokens by (`decayed_gains`); 1 leaves all.
        blank: all weights will be overwritten, so a scale of attention is not solved.
        seed: if given, weights depend on this number only, and torch's global generator is restored.
        **config: fields of the model's configuration.

    Raises:
        InputError: for an unknown class, fields that it refuses, and whatever `remove_skips_` refuses.

    Example:
        >>> sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
        >>> model = create_hf_model("LlamaForCausalLM", init=SkiplessInit(0.0, 3.0), seed=0, vocab_size=40, **sizes)
        >>> type(model).__name__, type(model.model.layers[0]).__name__
        ('LlamaForCausalLM', 'SkiplessLlamaDecoderLayer')
    """
    if init is not None and positions != "kept":
        raise InputError(f"positions={positions!r} is for models without init; a scheme has positions of its own")
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} is out of range; give 0 to 2^63 - 1")
    cls = _class(name)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        try:
            model = cls(_configuration(cls, config))
        except InputError:
            raise
        except _ERRORS as error:
            raise InputError(f"transformers cannot build {name!r} with {config}: {_line(error)}") from error
        return finish_(
            model,
            skip=skip,
            init=init,
            positions=positions,
            sub_blocks=sub_blocks,
            attention=attention,
            skip_gain=skip_gain,
            blank=blank,
        )


def _configuration(cls: Any, fields: dict[str, Any]) -> Any:
    """The configuration of a class; a field that it does not have is an error, as a misspelt one would go unnoticed."""
    default = cls.config_class()
    for field in fields:
        if not hasattr(default, field):
            near = did_you_mean(field, sorted(vars(default))).strip()
            raise InputError(f"{cls.config_class.__name__} has no field {field!r}{'; ' * bool(near)}{near}")
    return cls.config_class(**fields)


def _class(name: str) -> Any:
    """The library's class of a name; it must be a model's."""
    if not is_installed("transformers"):
        raise InputError(f"{name} is transformers': {how_to_install('transformers')}")
    import transformers

    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise InputError(f"transformers has no class {name!r} of a model; give one such as 'LlamaForCausalLM'")
    return found


def from_pretrained(
    folder: str | Path,
    *,
    sub_blocks: Sequence[SubBlock] = (),
    layer_scale: LayerScaleChoice = "remove",
    **kwargs: Any,
) -> Any:
    """Load a model that Hugging Face's `save_pretrained` has written, with the skips that it had or fewer.

    A skipless model comes back skipless. It does so by the library's own `from_pretrained`, too, once `skipless` has
    been imported; this one takes the class from the folder, and says in a line what is wrong with a folder.

    Args:
        folder: a local folder, with weights in one file or in shards.
        sub_blocks: sub-blocks whose skips are removed besides: `("attn", "mlp")` converts a residual model.
        layer_scale: what happens to their LayerScale; see `remove_skips_`.
        **kwargs: for `from_pretrained` of the class.

    Raises:
        InputError: for a folder without configuration or weights, missing or damaged shards, weights of other sizes
            than the configuration has, missing weights, and whatever `remove_skips_` refuses.
    """
    folder = Path(folder)
    names = _config(folder).get("architectures") or ()
    if not names:
        raise InputError(f"{folder / 'config.json'} names no class of a model (architectures)")
    cls = _class(names[0])
    check_shards(folder)
    try:
        model, told = cls.from_pretrained(
            folder, output_loading_info=True, **{"ignore_mismatched_sizes": True} | kwargs
        )
    except InputError:
        raise
    except _ERRORS as error:
        raise InputError(f"transformers cannot load {folder}: {_line(error)}") from error
    unlike = [] if kwargs.get("ignore_mismatched_sizes") else sorted(told["mismatched_keys"])
    if unlike:
        name, found, expected = unlike[0]
        raise InputError(
            f"{name} in {folder} is {tuple(found)}, by config.json {tuple(expected)}: another model's weights, or "
            "of another vocabulary"
        )
    if missing := sorted(told["missing_keys"]):
        raise InputError(f"the weights in {folder} lack {', '.join(missing[:3])}{' and more' * (len(missing) > 3)}")
    return remove_skips_(model, sub_blocks, layer_scale=layer_scale) if sub_blocks else model


def load_tokenizer(folder: str | Path, model: Any = None) -> Any:
    """Load the tokenizer of a folder, and check that the model has a row for each of its ids.

    Raises:
        InputError: if there is none, or it has ids that the model does not have.
    """
    if not is_installed("transformers"):
        raise InputError(f"tokenizers of folders are read by transformers: {how_to_install('transformers')}")
    from transformers import AutoTokenizer

    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise InputError(f"{folder} has no tokenizer (tokenizer.json): copy that of the model's own folder there")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except _ERRORS as error:
        raise InputError(f"the tokenizer in {folder} cannot be read: {_line(error)}") from error
    if model is not None:
        check_vocabulary(model, max(tokenizer.get_vocab().values()) + 1, str(folder))
    return tokenizer


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder} has no config.json: give a folder that save_pretrained has written")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class ImageLogits(nn.Module):
    """One of Hugging Face's image classifiers as a module from images to logits, as the training loop takes models."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of every class."""
        return self.model(pixel_values=images).logits
