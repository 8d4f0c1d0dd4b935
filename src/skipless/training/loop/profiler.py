"""`--profile`: where the time of a few steady steps goes, as a trace for Perfetto or chrome://tracing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

TRACE = "profile/trace.json"
WAIT, WARM_UP, STEPS = 10, 2, 5  # steps: caches fill and autotuning ends; the profiler's own start; what is recorded


@contextmanager
def profiled(folder: Path, *, steps: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """Yield what is to be called after every step; `folder/profile/trace.json` is written after the last of a few.

    Args:
        folder: of the run.
        steps: that are left in it; a short run is recorded earlier and for fewer steps.
        device: of training.
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
    """The same, and nothing happens."""
    yield lambda: None
