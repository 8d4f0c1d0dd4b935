"""An accelerator that is pretended, on a machine without one: a device plugin whose tensors have no values.

The plugin is torch's own for devices written in Python (PrivateUse1, under the name `pretended`); its tensors are
torch's fake ones, with shape, dtype and device. An operation on tensors of two devices fails, as on CUDA, and so does
whatever reads a value (`item`, `nonzero`, the truth of a tensor). So code that runs through has made every tensor on
the device that it was given, and has never waited for the device.

torch cannot take the plugin back: only processes that end afterwards may call `install`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
DEVICE = f"{NAME}:0"


class _Module(_DummyBackendModule):
    """What torch asks of a device's module; it can do autocast as CUDA can."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def install() -> None:
    """Give torch the device, for the rest of this process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())


class Reads(TorchDispatchMode):
    """Notes copies from the device to the CPU; whatever else reads a value of the device stays an error.

    On the CPU, where nothing waits, what reads a value gets one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Note, answer or let it run."""
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        device = args[0].device.type if args and isinstance(args[0], Tensor) else None
        if name == "_to_copy" and device == NAME and kwargs.get("device") == torch.device("cpu"):
            self.noted.append(f"copy of {args[0].numel()}")
        if name == "geqrf":  # torch has no shapes for it
            return args[0].clone(), args[0].new_empty((*args[0].shape[:-2], min(args[0].shape[-2:])))
        if name in _ON_CPU and device == "cpu":
            return _ON_CPU[name](args[0])
        return func(*args, **kwargs)


_ON_CPU: dict[str, Callable[[Tensor], object]] = {
    "_local_scalar_dense": lambda x: x.dtype.is_floating_point and 1.0,
    "nonzero": lambda x: x.new_empty((_FOUND, x.ndim), dtype=torch.long),
}
_FOUND = 6


@contextmanager
def pretended() -> Iterator[None]:
    """A context in which tensors can be made on the device."""
    with FakeTensorMode():
        yield


def to_pretended_(module: Any) -> Any:
    """Put a module's parameters and buffers on the pretended device; call it within the context."""
    seen: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                shared = seen.setdefault(id(parameter), nn.Parameter(_like(parameter), parameter.requires_grad))
                part._parameters[name] = shared
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else _like(buffer)
    return module


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
