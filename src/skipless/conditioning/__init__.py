"""Condition numbers of sections 4, 5 and A.3 to A.7: Jacobians as linear operators, their spectra, and the theory."""

from skipless.conditioning.measurement.attention_family import (
    AttentionFamily,
    CoreConditioning,
    ParameterBound,
    compare_attention,
    parameter_bound,
)
from skipless.conditioning.measurement.block_incoherence import AssumptionReport, check_assumptions
from skipless.conditioning.measurement.conditioning_report import BlockConditioning, ConditioningReport
from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.conditioning.operators.jacobian import attn_jacobian, mlp_jacobian, param_jacobian
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.dense import matrix_spectrum
from skipless.conditioning.spectra.density import SpectralDensity, spectral_density
from skipless.conditioning.spectra.estimates import Estimate, Spectrum
from skipless.conditioning.spectra.spectrum import spectrum
from skipless.conditioning.theory.propositions import (
    attention_terms,
    concatenation_bound,
    diffuse_bound,
    dominance_bound,
    gap_moments,
    logit_moments,
    perturbation_ratio,
)
from skipless.conditioning.theory.token_cosine import TokenCosine, attention_correlation, predict_token_cosine

__all__ = [
    "AssumptionReport",
    "AttentionFamily",
    "BlockConditioning",
    "ConditioningReport",
    "CoreConditioning",
    "Estimate",
    "LinearOperator",
    "ParameterBound",
    "SpectralDensity",
    "Spectrum",
    "TokenCosine",
    "attention_correlation",
    "attention_terms",
    "attn_jacobian",
    "check_assumptions",
    "compare_attention",
    "concatenation_bound",
    "diffuse_bound",
    "dominance_bound",
    "gap_moments",
    "logit_moments",
    "matrix_spectrum",
    "measure_conditioning",
    "mlp_jacobian",
    "param_jacobian",
    "parameter_bound",
    "perturbation_ratio",
    "predict_token_cosine",
    "spectral_density",
    "spectrum",
]
