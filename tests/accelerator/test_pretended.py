"""Whole steps on a pretended accelerator: every tensor is made on the device, and only what is listed here is read.

Tensors of the pretended device have no values. A tensor made on another device fails, and so does every read of a value
but a copy to the CPU, which is counted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("pretended_steps.py")
TASKS = ("supervised", "dino", "dino, clipped together", "dino, watched", "dino, patches", "language")


@pytest.fixture(scope="module")
def reads() -> dict[str, list[list[str]] | str]:
    """What each step read, by task and optimizer; the traceback of one that failed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT)], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "soap"])
@pytest.mark.parametrize("task", TASKS)
def test_a_step_waits_for_the_device_only_where_it_is_said(task: str, optimizer: str, reads) -> None:
    found = reads[f"{task}, {optimizer}"]
    assert isinstance(found, list), found
    refresh = int(optimizer == "soap")  # the counts of gradients that are not finite, of all parameters at once
    watched = int(task == "dino, watched")  # the teacher's collapse, all of it at once
    assert [len(step) for step in found] == [refresh, watched, refresh, watched]
