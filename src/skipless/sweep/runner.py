"""run_jobs: runs the jobs of a sweep, several at a time."""

import os
import time
from collections.abc import Sequence

from rich.console import Console

from skipless.errors import InputError
from skipless.sweep.child import start_forkserver
from skipless.sweep.display import Display
from skipless.sweep.jobs import Call, Job
from skipless.training.processes.launcher import check_launcher, rank_and_world_size

POLL_SECONDS = 0.25


def run_jobs(
    jobs: Sequence[Job | Call],
    *,
    parallel: int | None = None,
    threads: int = 1,
    console: Console | None = None,
    preload: Sequence[str] = (),
) -> None:
    """Run all jobs, `parallel` of them at a time. Jobs that have already finished end at once.

    Args:
        jobs: the jobs, in the order to start them.
        parallel: number of processes at a time; by default the number of cores divided by `threads`, or 1 if a job
            takes a GPU.
        threads: CPU threads of each process. Rounding depends on their number, so it is the same on every machine.
        console: where to show progress.
        preload: modules that all jobs need beside those of every run: imported once, not by each.

    Raises:
        InputError: if a job failed, once all others have ended. A diverged run is a result, not an error.
        KeyboardInterrupt: after all running jobs have written their checkpoints.
    """
    console = console or Console(stderr=True)
    if threads < 1:
        raise InputError(f"--threads {threads}: give at least 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if parallel is None:
        parallel = 1 if any(job.on_gpu for job in jobs) else max(1, cores // threads)
    if parallel < 1:
        raise InputError(f"--jobs {parallel}: give at least 1")
    check_launcher()  # each job would refuse it, too
    if rank_and_world_size()[1] > 1:
        raise InputError("a sweep starts its own processes; run it without torchrun")
    context = start_forkserver(preload)
    waiting = list(jobs)
    with Display(jobs, console) as display:
        try:
            while waiting or any(job.state == "running" for job in jobs):
                for job in jobs:
                    job.poll()
                free = parallel - sum(job.state == "running" for job in jobs)
                for job in waiting[:free]:
                    job.start(context, threads)
                del waiting[:free]
                display.show()
                time.sleep(POLL_SECONDS)
        finally:
            for job in jobs:
                job.stop()
            for job in jobs:
                job.join()
        display.show()
    failed = [job for job in jobs if job.state == "failed"]
    if failed:
        more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
        raise InputError(f"{', '.join(failed[0].labels)}: {failed[0].error}{more}")
