"""Shapes in signatures are checked at run time, under pytest only."""

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("skipless", "beartype.beartype")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and pytest-xdist already fills the cores."""
    torch.set_num_threads(1)
