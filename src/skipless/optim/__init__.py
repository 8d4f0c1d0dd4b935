"""Optimizers, parameter groups and schedules."""

# What moves the parameters
from skipless.optim.build import OptimizerConfig, build_optimizer

# Which of them decay
from skipless.optim.param_groups import check_complete, param_groups

# How fast, by the step
from skipless.optim.schedules import WarmupCosine
from skipless.optim.soap import SOAP

__all__ = ["SOAP", "OptimizerConfig", "WarmupCosine", "build_optimizer", "check_complete", "param_groups"]
