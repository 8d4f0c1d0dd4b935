"""What a step of a sine adapter keeps for the way back: no more than LoRA's, and no matrix of a weight's size."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import sine as twin
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from skipless.adapters import sine_

WIDE = 256
pytestmark = pytest.mark.filterwarnings(*twin.PEFT_WARNS)


@contextmanager
def kept(known: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps, apart from known ones."""
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield found


def _model(sine: bool, dtype: torch.dtype, layers: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    base = nn.Sequential(*[nn.Linear(WIDE, WIDE) for _ in range(layers)]).to(dtype)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=[str(i) for i in range(layers)], **options))
    return twin.draw(sine_(model) if sine else model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"lora_dropout": 0.1}])
def test_no_more_is_kept_than_by_lora(dtype, options) -> None:
    x = torch.randn(6, 5, WIDE).to(dtype)
    sizes = {}
    for sine in (False, True):
        model = _model(sine, dtype, **options).train()
        known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        with kept(known) as found:
            model(x)
        sizes[sine] = sum(found.values())
        assert max(found.values()) < WIDE * WIDE * dtype.itemsize
    assert 0 < sizes[True] <= sizes[False]


def test_a_plain_sine_would_keep_weights() -> None:
    """The count finds them: what the sine needs in each layer, and the weight where inputs have a gradient."""
    model = _model(True, torch.float32)
    layers = list(twin.layers(model).values())
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    x = torch.randn(6, 5, WIDE)
    with kept(known) as found:
        for layer in layers:
            weight = torch.sin(200 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight)) / 16
            x = layer.base_layer(x) + nn.functional.linear(x, weight)
    assert sum(size >= 4 * WIDE * WIDE for size in found.values()) == 2 * len(layers) - 1


class _Peak(TorchDispatchMode):
    """The most bytes that tensors made under it hold at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most, self.known = 0, 0, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self._note(one.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        key = storage.data_ptr()
        if key and key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _peak(sine: bool, layers: int) -> int:
    model = _model(sine, torch.float32, layers=layers)
    x = torch.randn(4, WIDE)
    model(x).sum().backward()  # gradients have their place
    with _Peak() as peak:
        model(x).sum().backward()
    return peak.most


def test_the_peak_of_a_step_is_loras_plus_what_one_layer_needs() -> None:
    """However many layers there are: a few matrices of one layer's size."""
    one, four = (_peak(True, layers) - _peak(False, layers) for layers in (1, 4))
    size = 4 * WIDE * WIDE
    assert size <= four <= 5 * size
    assert four <= one + size // 4


def test_nothing_is_kept_without_gradients() -> None:
    model = _model(True, torch.float32)
    with kept(set()) as found, torch.no_grad():
        model(torch.randn(2, WIDE))
    assert not found
