"""The adapters that there are, and which of them knows a model."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from torch import nn

from skipless.errors import InputError
from skipless.models.adapters.protocol import Adapter

# The module by which a library is known to have been imported, and its adapter. A model of a library that has not been
# imported cannot be met, so that no library is imported here.
_OURS = (
    ("timm", "timm_vit"),
    ("timm", "timm_eva"),
    ("timm", "timm_beit"),
    ("torchvision", "torchvision_vit"),
    ("torch", "torch_encoder"),
    ("transformers", "hf.adapter"),
)
_REGISTERED: list[Adapter] = []


def register_adapter(adapter: Adapter) -> Adapter:
    """Make an adapter of your own known to everything in this library (docs/adapters.md).

    Args:
        adapter: a module, or an object, with the names of `Adapter`.

    Returns:
        The adapter.

    Raises:
        InputError: if a name is missing.
    """
    missing = [name for name in _NAMES if not hasattr(adapter, name)]
    if missing:
        raise InputError(f"{adapter!r} is no adapter: it lacks {', '.join(missing)}; see docs/adapters.md")
    if adapter not in _REGISTERED:
        _REGISTERED.append(adapter)
    return adapter


def unregister_adapter(adapter: Adapter) -> None:
    """Take an adapter of your own back; one that is not registered changes nothing."""
    if adapter in _REGISTERED:
        _REGISTERED.remove(adapter)


_NAMES = ("SUPPORTED", "blocks", "view", "check_removable", "remove_skips_", "note_removed_", "vits")


def adapters() -> list[Adapter]:
    """The adapters of the libraries that have been imported: those that users registered first."""
    found = [import_module(f"skipless.models.adapters.{name}") for library, name in _OURS if library in sys.modules]
    return [*_REGISTERED, *(cast(Adapter, module) for module in found)]


def find_blocks(model: nn.Module) -> list[tuple[Adapter, str, nn.Module]]:
    """Every transformer block of the model, with its adapter and path, in the order of the model's modules.

    Raises:
        InputError: if no adapter knows one, or an adapter refuses one.
    """
    found = [(adapter, name, block) for adapter in adapters() for name, block in adapter.blocks(model)]
    if not found:
        raise no_adapter(type(model).__name__)
    if len({id(adapter) for adapter, _, _ in found}) > 1:
        order = {id(module): index for index, module in enumerate(model.modules())}
        found.sort(key=lambda one: order[id(one[2])])
    return found


def supported() -> str:
    """What all adapters know, whether their library has been imported or not."""
    ours = [import_module(f"skipless.models.adapters.{name}") for library, name in _OURS if find_spec(library)]
    return "; ".join(one.SUPPORTED for one in (*ours, *_REGISTERED))


def no_adapter(family: str) -> InputError:
    """The error for a model of a class that no adapter knows."""
    return InputError(f"no adapter for `{family}`; supported: {supported()}; to add one: docs/adapters.md")
