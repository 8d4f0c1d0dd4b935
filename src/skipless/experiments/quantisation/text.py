"""What the report of few bits says in words."""

from collections.abc import Sequence

from skipless.report.trust import without_spread

TITLE = "What few bits cost"
DESCRIPTION = (
    "The same transformer with skip connections and without, trained alike and then rounded: weights and the inputs of "
    "linear maps to 8, 6 or 4 bits. The rotated model is the residual one with its stream turned by a Hadamard matrix, "
    "which changes nothing it computes and is what one would do instead of leaving out the skips."
)


def notes(unit: str, spread: Sequence[int], *, static: bool, language: bool) -> list[str]:
    """How far to trust the numbers.

    Args:
        unit: what scores are of, with their number.
        spread: finished runs of each cell.
        static: whether ranges of activations were found once, on training data.
        language: whether it is a language model.
    """
    ranges = "a range a tensor, found on training data" if static else "each token by its own largest magnitude"
    said = [
        f"Scores are of {unit} that no run was trained on.",
        f"Rounding is simulated: weights by output channel, activations {ranges}; embedding and head stay as they are.",
        "Kurtosis is excess kurtosis of all numbers of a site, 0 for a Gaussian; other definitions stand on the pages "
        "of the studies, in studies/.",
        "Models are trained at the rates of their own table, not to equal accuracy: read what is lost beside what is "
        "there to lose.",
    ]
    if language:
        said.append("The paper's scheme is read as `sharp`: as it is printed the language model does not learn.")
    said += without_spread(spread)
    return said
