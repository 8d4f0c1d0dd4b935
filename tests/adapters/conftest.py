"""PEFT as these tests need it, whatever its version."""

import importlib.util

import pytest

if importlib.util.find_spec("peft") is None:  # the extra `adapters` is not installed
    collect_ignore_glob = ["test_*.py"]
else:
    import peft
    from peft.tuners.lora import torchao as peft_torchao

    if tuple(map(int, peft.__version__.split(".")[:2])) < (0, 19):
        # PEFT 0.18 imports names that torchao no longer has: beside today's torchao it makes no LoRA layer at all.
        peft_torchao.is_torchao_available = lambda: False


@pytest.fixture(autouse=True)
def _quiet(recwarn: pytest.WarningsRecorder) -> None:
    """Warnings of PEFT's are not ours to fail on; those that tests are about they ask for themselves."""
    import warnings

    warnings.filterwarnings("default", module=r"peft\..*")
    warnings.filterwarnings("default", message=".*torch.jit.*")
