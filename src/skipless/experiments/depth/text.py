"""What the depth report says in words."""

from collections.abc import Sequence

from skipless.report.trust import ONE_THREAD, held_out, without_spread

TITLE = "Depth: accuracy and token similarity"
DESCRIPTION = (
    "One vision transformer with more and more blocks: with skip connections, with the position embeddings of our "
    "initialisation besides, without skips, and without skips but started by the paper's initialisation or by ours. "
    "Without skips tokens grow alike with depth, and what they have in common no later block can tell apart again."
)


def notes(images: int, seeds: Sequence[int], *, tuned: bool, muon: bool) -> list[str]:
    """How far to trust the numbers.

    Args:
        images: that accuracies are on.
        seeds: finished runs of each cell.
        tuned: whether learning rates were tuned for these runs.
        muon: whether runs by Muon are among them.
    """
    said = [held_out(images)]
    if tuned:
        said.append("Every cell's learning rate is the best of three, by one run on images held out of training.")
    else:
        said.append(
            "Learning rates are those of Table 1, of 12 blocks, and of our rows by hand; at scale scenes those of "
            "`skipless train scenes`, of 6 blocks. For models without skips they fall as 12 / depth, for ours the rate "
            "of the blocks does. --tune chooses each anew."
        )
    if muon and not tuned:
        said.append("Muon's own were not tuned: they are AdamW's for the model with skips.")
    if muon:
        said.append("Muon updates the matrices of the blocks, AdamW the rest.")
    said += without_spread(seeds)
    said.append("Token cosines are of the first seed, on 64 validation images.")
    said.append(ONE_THREAD)
    return said
