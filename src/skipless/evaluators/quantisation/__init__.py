"""What a model's activations are like, and what few bits cost it: statistics, budgets, fake quantisation, rotation."""

from skipless.evaluators.quantisation.rotation.orthogonal import rotation_matrix
from skipless.evaluators.quantisation.rotation.rotate import rotate_
from skipless.evaluators.quantisation.rounding.convert import is_quantised, quantisation_of, quantise_, unquantise_
from skipless.evaluators.quantisation.rounding.grid import sqnr
from skipless.evaluators.quantisation.rounding.protocol import PRECISIONS, Quantisation, precision
from skipless.evaluators.quantisation.rounding.torchao_kernels import torchao_
from skipless.evaluators.quantisation.statistics.activations import ActivationStatistics, activation_statistics
from skipless.evaluators.quantisation.statistics.budget import BlockBudget, mixed_kurtosis, sum_kurtosis
from skipless.evaluators.quantisation.statistics.kurtosis import excess_kurtosis
from skipless.evaluators.quantisation.statistics.site_statistics import SiteStatistics
from skipless.evaluators.quantisation.statistics.sites import SITES

__all__ = [
    "PRECISIONS",
    "SITES",
    "ActivationStatistics",
    "BlockBudget",
    "Quantisation",
    "SiteStatistics",
    "activation_statistics",
    "excess_kurtosis",
    "is_quantised",
    "mixed_kurtosis",
    "precision",
    "quantisation_of",
    "quantise_",
    "rotate_",
    "rotation_matrix",
    "sqnr",
    "sum_kurtosis",
    "torchao_",
    "unquantise_",
]
