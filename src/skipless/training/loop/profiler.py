"""`--profile`: a trace of a few steps by torch's profiler, for Perfetto or chrome://tracing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

TRACE = "profile/trace.json"
WAIT, WARM_UP, STEPS = 10, 2, 5  # steps for caches and autotuning, for the profiler's own start, and recorded


@contextmanager
def profiled(folder: Path, *, steps: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """Yield a function to call after every step; the last recorded step writes `folder/profile/trace.json`.

    Args:
        folder: the run folder.
        steps: number of remaining steps. A short run is recorded earlier and for fewer steps.
        device: device of training.
    """
    active = max(1, min(STEPS, steps - WARM_UP))
    wait = max(0, min(WAIT, steps - WARM_UP - active))
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])

    def write(found: profile) -> None:
        (folder / TRACE).parent.mkdir(exist_ok=True)
        found.export_chrome_trace(str(folder / TRACE))

    plan = schedule(wait=wait, warmup=WARM_UP, active=active, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write, record_shapes=True) as profiler:
        yield profiler.step


@contextmanager
def unprofiled() -> Iterator[Callable[[], None]]:
    """Yield a function to call after every step that does nothing."""
    yield lambda: None
