"""Layers of the sibling papers."""

from skipless.nn.token_graying import TokenGraying

__all__ = ["TokenGraying"]
