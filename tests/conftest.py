"""Shapes in signatures are checked at run time, under pytest only."""

import os
import random
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from typing import Any

# Before NumPy and torch are imported, and for the processes that tests start: on a busy machine threads that wait for
# each other take several times the work's own time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jaxtyping
import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

TYPES_ARE_CHECKED = find_spec("beartype") is not None  # a borrowed machine with an accelerator may lack it
if TYPES_ARE_CHECKED:
    jaxtyping.install_import_hook("skipless", "typecheck.checked")


SLOW_SECONDS = 900


def pytest_report_header() -> list[str]:
    """Say if shapes are not checked."""
    return [] if TYPES_ARE_CHECKED else ["shapes in signatures are NOT checked: beartype is not installed"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device`: where the tests that take `device` run."""
    told = "device of the tests marked `accelerator`: cpu, cuda, mps; with meta, those that ignore their device fail"
    parser.addoption("--device", default="cpu", help=told)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test draws without a generator of its own is the same in every run, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes the fixture `device`, so that no test on a device is left out of `-m accelerator`.

    Slow tests have three times as long as others, on a busy machine.
    """
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
        given = getattr(getattr(item, "callspec", None), "params", {})
        if "device" in getattr(item, "fixturenames", ()) and "device" not in given:
            item.add_marker("accelerator")
        elif item.get_closest_marker("accelerator"):
            raise pytest.UsageError(f"{item.nodeid} is marked `accelerator`, but does not take the fixture `device`")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where this test is to run: `--device`."""
    return torch.device(request.config.getoption("--device"))


class _Devices(TorchDispatchMode):
    """Notes the devices of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.seen |= {leaf.device.type for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)}
        return found


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """On the meta device tensors have no values, so what a test finds counts for nothing: it must only have been there.

    A test passes if it made a tensor on its device, or was refused with an error that names the device.
    """
    if pyfuncitem.config.getoption("--device") != "meta" or pyfuncitem.get_closest_marker("accelerator") is None:
        return (yield)
    said = ""
    with _Devices() as devices:
        try:
            yield
        except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
            said = str(error)
    if "meta" not in devices.seen and "'meta'" not in said:
        pytest.fail(f"the test takes `device` and makes nothing on it; it ended with {said!r}")
    return True


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
