"""Sections 4, 5 and A.3 to A.7 as an instrument: Jacobians as linear operators, their spectra, and the theory."""

from skipless.conditioning.operator import LinearOperator

__all__ = ["LinearOperator"]
