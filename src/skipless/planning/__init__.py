"""What a run would take, and what limits one that is running."""

# What is computed, whatever the machine
from skipless.planning.activations import Keeping
from skipless.planning.flops import backward_flops, forward_flops

# On what, with what taken for granted
from skipless.planning.hardware import GPU, GPUS, find_gpu

# How long it takes, and how much memory
from skipless.planning.plan import Assumptions, Memory, Plan, Setup, Time, plan
from skipless.planning.workload import Workload, workload

__all__ = [
    "GPU",
    "GPUS",
    "Assumptions",
    "Keeping",
    "Memory",
    "Plan",
    "Setup",
    "Time",
    "Workload",
    "backward_flops",
    "find_gpu",
    "forward_flops",
    "plan",
    "workload",
]
