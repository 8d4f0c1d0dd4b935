"""Sweeps: many recipes or evaluations in parallel, each in a process of its own, with their progress.

Children communicate through the folders that they write and the parent reads. They end when their parent ends, for any
reason. The same call then resumes them from their last checkpoints.
"""

from skipless.sweep.campaign import Campaign
from skipless.sweep.jobs import Call, Job
from skipless.sweep.runner import run_jobs

__all__ = ["Call", "Campaign", "Job", "run_jobs"]
