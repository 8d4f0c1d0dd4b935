"""Sections 4, 5 and A.3 to A.7 as an instrument: Jacobians as linear operators, their spectra, and the theory."""

from skipless.conditioning.assumptions import AssumptionReport, check_assumptions
from skipless.conditioning.dense import matrix_spectrum
from skipless.conditioning.density import SpectralDensity, spectral_density
from skipless.conditioning.jacobian import attn_jacobian, mlp_jacobian, param_jacobian
from skipless.conditioning.measure import measure_conditioning
from skipless.conditioning.measured import BlockConditioning, ConditioningReport
from skipless.conditioning.operator import LinearOperator
from skipless.conditioning.records import Estimate, Spectrum
from skipless.conditioning.spectrum import spectrum
from skipless.conditioning.theory import (
    attention_terms,
    concatenation_bound,
    diffuse_bound,
    dominance_bound,
    gap_moments,
    logit_moments,
    perturbation_ratio,
)

__all__ = [
    "AssumptionReport",
    "BlockConditioning",
    "ConditioningReport",
    "Estimate",
    "LinearOperator",
    "SpectralDensity",
    "Spectrum",
    "attention_terms",
    "attn_jacobian",
    "check_assumptions",
    "concatenation_bound",
    "diffuse_bound",
    "dominance_bound",
    "gap_moments",
    "logit_moments",
    "matrix_spectrum",
    "measure_conditioning",
    "mlp_jacobian",
    "param_jacobian",
    "perturbation_ratio",
    "spectral_density",
    "spectrum",
]
