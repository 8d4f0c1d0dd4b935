"""What a model's activations are like, and what few bits cost it: statistics, budgets, fake quantisation, rotation."""

from skipless.evaluators.quantisation.budget import BlockBudget, mixed_kurtosis, sum_kurtosis
from skipless.evaluators.quantisation.convert import is_quantised, quantisation_of, quantise_, unquantise_
from skipless.evaluators.quantisation.grid import sqnr
from skipless.evaluators.quantisation.kurtosis import excess_kurtosis
from skipless.evaluators.quantisation.orthogonal import rotation_matrix
from skipless.evaluators.quantisation.protocol import PRECISIONS, Quantisation, precision
from skipless.evaluators.quantisation.rotation import rotate_
from skipless.evaluators.quantisation.site_statistics import SiteStatistics
from skipless.evaluators.quantisation.sites import SITES
from skipless.evaluators.quantisation.statistics import ActivationStatistics, activation_statistics
from skipless.evaluators.quantisation.torchao_kernels import torchao_

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
