"""The adapter for Hugging Face transformers: ViT, DeiT, DINOv2, DINOv3, BERT, GPT-2, and the Llama family.

Classes are told apart by where they are defined, and by exact type: no family is imported that the user has not
imported. A skip is removed by giving the block, or BERT's output modules, another class with the same parameters.
State-dict keys stay, `generate` and its cache work, and so do gradient checkpointing, `torch.compile`, SDPA and eager.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import nn

from skipless.errors import InputError
from skipless.models.adapters.hf.classes import Path, known_class, own_class, path_of, residual_class
from skipless.models.adapters.hf.prenorm import check_unsharded
from skipless.models.adapters.hf.saved import note_
from skipless.models.adapters.parts import put_gains_
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.blocks import BlockView, SubBlock
from skipless.models.text_view import TextView
from skipless.models.vit_view import ViTView

SUPPORTED = "transformers' ViT, DeiT, DINOv2 (with registers), DINOv3 ViT, BERT, GPT-2, Llama, Mistral, Qwen2 and Qwen3"

# Where each kind of block is defined, and the file here that knows it.
_BLOCKS = {
    Path("vit.modeling_vit", "ViTLayer"): "vision",
    Path("deit.modeling_deit", "DeiTLayer"): "vision",
    Path("dinov2.modeling_dinov2", "Dinov2Layer"): "vision",
    Path("dinov2_with_registers.modeling_dinov2_with_registers", "Dinov2WithRegistersLayer"): "vision",
    Path("dinov3_vit.modeling_dinov3_vit", "DINOv3ViTLayer"): "vision",
    Path("bert.modeling_bert", "BertLayer"): "bert",
    Path("gpt2.modeling_gpt2", "GPT2Block"): "gpt2",
    Path("llama.modeling_llama", "LlamaDecoderLayer"): "llama",
    Path("mistral.modeling_mistral", "MistralDecoderLayer"): "llama",
    Path("qwen2.modeling_qwen2", "Qwen2DecoderLayer"): "llama",
    Path("qwen3.modeling_qwen3", "Qwen3DecoderLayer"): "llama",
}


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every transformer block in the model, with its path, first to last.

    Raises:
        InputError: if one has a subclass's class, or stands among blocks of another kind. A model is converted whole or
            not at all.
    """
    if _is_known(model):
        return [("", model)]
    found = []
    for path, module in model.named_modules():
        if _is_known(module):
            found.append((path, module))
        elif any(path_of(base) in _BLOCKS for base in own_class(module).__mro__):
            raise InputError(f"no adapter for the block `{type(module).__name__}` at {path}; supported: {SUPPORTED}")
    for path in dict.fromkeys(path.rpartition(".")[0] for path, _ in found):
        for name, sibling in model.get_submodule(path).named_children():
            if isinstance(model.get_submodule(path), nn.ModuleList | nn.Sequential) and not _is_known(sibling):
                where = f"{path}.{name}".lstrip(".")
                raise InputError(f"no adapter for the block `{type(sibling).__name__}` at {where}; {SUPPORTED}")
    return found


def _is_known(module: nn.Module) -> bool:
    return known_class(module) in _BLOCKS


def _file(block: nn.Module) -> Any:
    """The file that knows a block's kind."""
    home = known_class(block)
    assert home is not None
    return import_module(f"skipless.models.adapters.hf.{_BLOCKS[home]}")


def view(name: str, block: nn.Module) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: for parts of a class that this adapter does not know, and for linear maps that are not plain.
    """
    return _file(block).view(name, block)


def check_removable(name: str, block: nn.Module, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse skips that cannot be removed.

    Raises:
        InputError: for cross-attention, dropout and drop path on a branch, and a block that FSDP2 has sharded.
    """
    check_unsharded(name, block)
    _file(block).check_removable(name, block, sub_blocks)


def remove_skips_(block: nn.Module, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    return _file(block).remove_skips_(block, sub_blocks, layer_scale)


def set_skip_gains_(block: nn.Module, gains: tuple[float, float]) -> None:
    """Have the skips of attention and MLP multiply their tokens by a gain, where there are skips.

    Raises:
        InputError: for a block that FSDP2 has sharded.
    """
    check_unsharded("the block", block)
    file = _file(block)
    if hasattr(file, "set_skip_gains_"):
        file.set_skip_gains_(block, gains)
    else:
        file.remove_skips_(block, (), "keep")
        put_gains_(block, gains)


def note_removed_(model: nn.Module, views: Sequence[BlockView]) -> None:
    """Write into every configuration what its model has lost, and the blocks' new class names where they are not split.

    `device_map` and accelerate's FSDP plugin keep whole what `_no_split_modules` names.
    """
    names = {residual_class(own_class(view.block)).__name__: own_class(view.block).__name__ for view in views}
    for module in model.modules():
        whole = getattr(module, "_no_split_modules", None)
        if whole:
            module._no_split_modules = type(whole)(names.get(name, name) for name in whole)
    note_(model)


def note_initialized_(views: Sequence[BlockView]) -> None:
    """Mark the parameters as initialised, so that the library's own initialisation, called again, leaves them."""
    for one in views:
        for parameter in one.block.parameters():
            parameter._is_hf_initialized = True  # pyright: ignore[reportAttributeAccessIssue]


def vits(model: nn.Module) -> list[ViTView]:
    """How every vision transformer in the model turns images into tokens."""
    from skipless.models.adapters.hf import images

    return images.vits(model)


def texts(model: nn.Module) -> list[TextView]:
    """How every language model in the model turns token ids into tokens."""
    from skipless.models.adapters.hf import texts as of_ids

    return of_ids.texts(model)
