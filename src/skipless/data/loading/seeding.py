"""Seeds as pure functions of run, epoch, step and sample, so that no generator's state has to be saved."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Hash the parts to a 64-bit seed: equal parts give equal seeds, different parts unrelated ones.

    The hash is BLAKE2, since Python's own differs between processes.

    Example:
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 3)
        True
        >>> derive_seed(0, "order", 3) == derive_seed(0, "order", 4)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def seed_all(seed: int, device: torch.device | None = None) -> None:
    """Seed the global generators of torch, numpy and Python, from which steps and augmentations draw.

    It avoids `torch.manual_seed`, which stores a formatted stack trace at every call before CUDA is initialised.

    Args:
        seed: 64 bits; numpy's legacy generator takes the lower 32 of them.
        device: an accelerator whose generator is seeded as well.
    """
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 (timm's augmentation and mixup draw from the global one)
    random.seed(seed)


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the state of the CPU's global generators at the end of the context.

    Example:
        >>> before = torch.initial_seed()
        >>> with preserved_random_state():
        ...     seed_all(derive_seed(before, "elsewhere"))
        >>> torch.initial_seed() == before
        True
    """
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
        random.setstate(saved[2])
