"""Evaluators: what is reported. An evaluator takes a model and data and returns named numbers."""

from skipless.evaluators.classification import top1

__all__ = ["top1"]
