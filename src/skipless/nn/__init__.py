"""Layers of related papers."""

from skipless.nn.token_graying import TokenGraying

__all__ = ["TokenGraying"]
