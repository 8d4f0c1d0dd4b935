"""How results are printed."""

from collections.abc import Mapping


def words(metrics: Mapping[str, float]) -> str:
    """Named numbers on one line."""
    return "  ".join(f"{name} {value:.5g}" for name, value in metrics.items())
