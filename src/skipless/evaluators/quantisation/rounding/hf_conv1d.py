"""GPT-2's `Conv1D`, whose weight is (in, out), with rounded weights and inputs."""

from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from skipless.evaluators.quantisation.rounding.linear import quantised_linear
from skipless.evaluators.quantisation.rounding.protocol import Rule


class QuantisedConv1D(Conv1D):
    """`Conv1D` with rounded weights and inputs; made by `quantise_`."""

    unquantised = Conv1D
    quantisation_rule: Rule

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """The map, in integers."""
        return quantised_linear(x, self.weight.mT, self.bias, self.quantisation_rule)
