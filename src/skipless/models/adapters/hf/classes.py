"""Classes of Hugging Face modules: told apart by name, so that no family is imported, and their skipless subclasses."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from skipless.errors import InputError
from skipless.models.blocks import LinearMap

_MODELS = "transformers.models"
PREFIX = "Skipless"


class Path(NamedTuple):
    """Where a class is defined.

    Attributes:
        module: `llama.modeling_llama`, below `transformers.models`.
        name: `LlamaDecoderLayer`.
    """

    module: str
    name: str


def own_class(module: nn.Module) -> type:
    """The class of a module as its library has it, whether or not FSDP2 has sharded or `quantise_` changed the module.

    `fully_shard` gives a module a class `FSDP<Class>` of its own, with the bases `FSDPModule` and the class.
    """
    found = type(module)
    found = found.__mro__[2] if is_sharded(module) else found
    return getattr(found, "unquantised", found)


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2's `fully_shard` has given the module another class."""
    bases = type(module).__mro__
    return bases[0].__name__.startswith("FSDP") and bases[1].__name__ == "FSDPModule"


def residual_class(cls: type) -> type:
    """The library's class of a block: of a skipless one, the class that it was made from."""
    return getattr(cls, "residual", cls)


def path_of(cls: type) -> Path | None:
    """Where Hugging Face defines a class; None for a class of anybody else."""
    package, _, module = cls.__module__.partition(f"{_MODELS}.")
    return None if package or not module else Path(module, cls.__name__)


def known_class(module: nn.Module) -> Path | None:
    """Where the class of a module is defined, with its skips or without; None unless it is exactly one of theirs."""
    return path_of(residual_class(own_class(module)))


def skipless_class(forward: type, residual: type) -> type:
    """The subclass of a block's class whose forward leaves chosen skips out, the same one each time.

    It is an attribute of the module that has `forward`, so that it can be pickled.

    Args:
        forward: has the forward, and is put before `residual`.
        residual: Hugging Face's class.
    """
    name = f"{PREFIX}{residual.__name__}"
    home = vars(import_module(forward.__module__))
    if name not in home:
        doc = f"`{residual.__name__}` in which the skip connection of each sub-block can be left out."
        own = {"__module__": forward.__module__, "__qualname__": name, "__doc__": doc, "residual": residual}
        home[name] = type(name, (forward, residual), own)
    return home[name]


def class_by_name(name: str, forwards: Mapping[str, tuple[str, type]]) -> Any:
    """The skipless class of a name, for a module's `__getattr__`: pickles name classes that have not been made yet.

    Args:
        name: `SkiplessLlamaDecoderLayer`.
        forwards: by the residual class's name, its module and what has the forward.

    Raises:
        AttributeError: for any other name.
    """
    bare = name.removeprefix(PREFIX)
    if bare == name or bare not in forwards:
        raise AttributeError(name)
    module, forward = forwards[bare]
    return skipless_class(forward, getattr(import_module(f"{_MODELS}.{module}"), bare))


def expect(name: str, what: str, part: nn.Module, home: Path, *known: str) -> str:
    """The class name of a block's part, which must be exactly one of its family's.

    Raises:
        InputError: if it is not.
    """
    found = known_class(part)
    if found is None or found.module != home.module or found.name not in known:
        raise InputError(
            f"no adapter for the {what} `{type(part).__name__}` of {name}; supported: {' and '.join(known)}"
        )
    return found.name


def linear_maps(name: str, linear: nn.Module, count: int = 1) -> tuple[LinearMap, ...]:
    """The maps that a linear module of a block fuses, side by side; `nn.Linear` or GPT-2's `Conv1D`.

    Raises:
        InputError: for one that is quantised, or wrapped by PEFT.
    """
    weight = getattr(linear, "weight", None)
    if hasattr(linear, "base_layer"):
        raise InputError(
            f"{name} has `{type(linear).__name__}`, which an adapter such as LoRA's wraps: remove skips and initialise "
            "before PEFT, or merge first (model = model.merge_and_unload())"
        )
    computed = is_parametrized(linear)  # spectral conditioning: its weight is no parameter, and is for reading
    own = type(linear).__mro__[1] if computed else own_class(linear)
    conv1d = own.__module__ == "transformers.pytorch_utils" and own.__name__ == "Conv1D"
    plain = own is nn.Linear or conv1d
    stored = type(weight).__name__ in ("Parameter", "DTensor") or (computed and type(weight) is Tensor)
    if not plain or not isinstance(weight, Tensor) or not stored:
        kind = type(linear).__name__ if not plain else f"{type(linear).__name__}, {type(weight).__name__}"
        raise InputError(
            f"{name} has a linear map `{kind}`, not a plain one: load the model without quantization_config, remove "
            "skips, initialise and train; quantise after that"
        )
    if not conv1d:
        return LinearMap.parts(linear, count)  # pyright: ignore[reportArgumentType]
    size = weight.shape[1] // count
    bias: Any = linear.bias
    return tuple(LinearMap(weight, bias, slice(i * size, (i + 1) * size), transposed=True) for i in range(count))


def norms_of(*norms: nn.Module) -> tuple[nn.Module, ...]:
    """Those that are there."""
    return tuple(norm for norm in norms if not isinstance(norm, nn.Identity))
