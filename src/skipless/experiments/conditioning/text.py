"""What the pages of this room say in words: titles, settings, where ours differs, and how far to trust it."""

from typing import Literal

What = Literal["table5", "table6", "figure5", "figure6", "assumptions"]

TITLES: dict[What, str] = {
    "table5": "Table 5: conditioning of the whole network",
    "table6": "Table 6: conditioning of each attention",
    "figure5": "Figure 5: softmax matrices, peaked and diffuse",
    "figure6": "Figure 6: distribution of the tokens",
    "assumptions": "Eqs. 6 and 37: what the paper assumes",
}
_THREE = "with skip connections, without them, and without them but started by the paper's initialisation"
DESCRIPTIONS: dict[What, str] = {
    "table5": f"The condition number of the whole network's Jacobian, kappa(J Jᵀ), in a vision transformer {_THREE}. "
    "The larger it is, the more unevenly a step of training moves what the network says.",
    "table6": f"The condition number of the Jacobian of single attentions in a vision transformer {_THREE}. The "
    "paper's claim is that skip connections keep it small, and that its initialisation does so without them.",
    "figure5": "The condition number of a softmax matrix whose logits have a large diagonal, as the paper's "
    "initialisation makes it, and of one whose logits have none, as usual ones make it.",
    "figure6": "The entries of the tokens that each attention receives, before and after training. The paper's theory "
    "supposes that they are as of a normal distribution.",
    "assumptions": f"What the paper's theory takes for granted and does not measure, in a vision transformer {_THREE}: "
    "both sides of Eq. 6 and Eq. 37, and the rho and tau that they need.",
}
PAPER: dict[What, str] = {
    "table5": "ViT-S, DINO on ImageNet-1k, 300 epochs, one model a row",
    "table6": "ViT-S, DINO on ImageNet-1k, 300 epochs, one model a row",
    "figure5": "one draw of each kind",
    "figure6": "histograms of one model",
    "assumptions": "",
}


def differences(what: What, scale: str) -> list[str]:
    """What is otherwise than in the paper."""
    said = []
    if what in ("table5", "table6", "figure6"):
        if scale == "vit-s":
            said.append("Models are measured before training alone, at an image of N(0, 1) pixels.")
        elif scale == "init":
            said.append("A small model on small images, measured before training alone: compare orders, not values.")
        elif scale == "language":
            said.append(
                "A language model that predicts next tokens, by SOAP, with the paper's scheme read as (0, 3) and gates "
                "that start equal, where the paper has DINO: compare trends, not values."
            )
        else:
            said.append(
                "Supervised training of Table 1's model by SOAP, where the paper has DINO: compare orders and trends, "
                "not values. Equal shares of the training stand beside each other."
            )
    if scale == "language" and what != "figure6":
        said.append("It is measured at windows of 16 tokens. K is block triangular under the causal mask.")
    if what == "table5":
        choices = "one choice" if scale == "language" else "two choices"
        said.append(f"The paper does not say which rows of J it takes; ours has {choices} of 64 rows.")
    if what == "table6":
        said.append("The paper does not say at which images it measures, nor how it handles the many rows of K.")
    if what == "figure5":
        said.append("The paper shows one draw of each kind and does not say how the logits are drawn; ours has many.")
    return said


def notes(what: What, *, seed: int) -> list[str]:
    """How far to trust the numbers."""
    if what == "figure5":
        return [f"All draws are of seed {seed}; the quartiles say how much one draw differs from another."]
    said = [
        f"One model a row, of seed {seed}: n = 1. Small differences mean nothing; another --seed shows how much they "
        "vary."
    ]
    if what in ("table5", "table6", "assumptions"):
        said.append("“≥” is the most that the precision proves of a matrix that is nearly singular; it may be larger.")
    if what == "figure6":
        said.append("A histogram of entries cannot show how tokens depend on each other; the isotropy beside it does.")
    return said
