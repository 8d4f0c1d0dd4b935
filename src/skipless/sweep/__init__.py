"""Run many recipes, or evaluations, side by side, each in a process of its own, and show how they get on.

The folders that they write are the only channel: a child works and writes, the parent reads. Children end with their
parent, however it ends, and the same call goes on from their last checkpoints.
"""

from skipless.sweep.jobs import Call, Job
from skipless.sweep.runner import run_jobs

__all__ = ["Call", "Job", "run_jobs"]
