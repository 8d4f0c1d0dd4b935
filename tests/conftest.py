"""Shapes in signatures are checked at run time, under pytest only."""

import os
from collections.abc import Iterator

# Before NumPy and torch are imported, and for the processes that tests start: on a busy machine threads that wait for
# each other take several times the work's own time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("skipless", "typecheck.checked")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and pytest-xdist already fills the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Call as a user does, without the type checker that these tests install: our own errors must speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
