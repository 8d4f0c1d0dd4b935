"""Quantised matrices as bytes: a codebook, and an index of a few bits for each entry."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from skipless.errors import InputError

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_HEADER = 2  # bytes: how many bits an index has, and the codebook's dtype


def pack(matrix: Float[Tensor, "m n"], codebook: Float[Tensor, " k"], name: str) -> UInt8[Tensor, "1 1 bytes"]:
    """A matrix of codebook entries as bytes: two of a header, the codebook, then indices of log2 k bits.

    The leading 1s make it a shape that no linear map has.

    Args:
        matrix: has no other values than the codebook's.
        codebook: ascending; k is a power of 2.
        name: of the matrix, for the error.

    Raises:
        InputError: if the matrix has another value.

    Example:
        >>> codebook = torch.tensor([-1.0, 0.0, 0.5, 2.0])
        >>> packed = pack(codebook[torch.tensor([[0, 3, 1], [2, 2, 0]])], codebook, "A")
        >>> packed.shape, unpack(packed, (2, 3), "A")[0].tolist()
        (torch.Size([1, 1, 20]), [[-1.0, 2.0, 0.0], [0.5, 0.5, -1.0]])
    """
    values, entries = matrix.detach().flatten(), codebook.to(matrix)
    codes = torch.searchsorted(entries, values).clamp_max(len(entries) - 1)
    if not torch.equal(entries[codes], values):
        raise InputError(f"{name} was changed after it was quantised: call quantise_ again, or with bits=None")
    bits = len(entries).bit_length() - 1
    header = torch.tensor([bits, _DTYPES.index(entries.dtype)], dtype=torch.uint8, device=values.device)
    single = codes[:, None] >> torch.arange(bits, device=codes.device) & 1
    padded = torch.nn.functional.pad(single.flatten(), (0, -codes.numel() * bits % 8)).view(-1, 8)
    packed = (padded << torch.arange(8, device=codes.device)).sum(1).to(torch.uint8)
    return torch.cat([header, entries.contiguous().view(torch.uint8), packed])[None, None]


def packed_bytes(entries: int, bits: int, width: int = 4) -> int:
    """How many bytes `pack` makes of a matrix.

    Args:
        entries: of the matrix.
        bits: of an index.
        width: bytes of an entry of the codebook.

    Example:
        >>> packed_bytes(6, 2)
        20
    """
    return _HEADER + (1 << bits) * width + math.ceil(entries * bits / 8)


def unpack(packed: UInt8[Tensor, "1 1 bytes"], shape: tuple[int, ...], name: str) -> tuple[Tensor, Tensor]:
    """The matrix and its codebook, to the bit.

    Args:
        packed: what `pack` gave.
        shape: of the matrix.
        name: of the matrix, for the error.

    Raises:
        InputError: if the bytes are not those of such a matrix.
    """
    found = packed.flatten()
    bits, kind = found[:_HEADER].tolist() if len(found) > _HEADER else (0, len(_DTYPES))
    count = math.prod(shape)
    dtype = _DTYPES[kind] if kind < len(_DTYPES) else torch.float32
    end = _HEADER + (1 << bits) * dtype.itemsize
    if kind >= len(_DTYPES) or len(found) != end + math.ceil(count * bits / 8):
        raise InputError(f"{name}: {len(found)} bytes are no quantised matrix of shape {shape}")
    codebook = found[_HEADER:end].clone().view(dtype)
    single = found[end:, None].int() >> torch.arange(8, device=found.device) & 1
    digits = single.flatten()[: count * bits].view(count, bits)
    codes = (digits << torch.arange(bits, device=found.device)).sum(1)
    return codebook[codes].view(shape), codebook


def is_packed(found: Tensor) -> bool:
    """Whether a tensor is what `pack` gives.

    Example:
        >>> is_packed(torch.zeros(1, 1, 9, dtype=torch.uint8)), is_packed(torch.zeros(4, 2))
        (True, False)
    """
    return found.dtype == torch.uint8 and found.ndim == 3
