"""What the pages of studies say in words."""

from dataclasses import dataclass

from skipless.display.values import counted
from skipless.studies.origin import Origin


@dataclass(frozen=True)
class StudyText:
    """What a page says of a study, whatever came out.

    Attributes:
        title: of the study.
        description: what it measures.
        paper: the paper's setting; empty where it has no such numbers.
        trust: how far to trust the numbers, a sentence each.
        curve: caption of the picture that the result draws.
    """

    title: str
    description: str
    paper: str = ""
    trust: tuple[str, ...] = ()
    curve: str = "Every block, beside what needs no features"


_BEST = (
    "The best block is chosen on the images that it is scored on, as the paper's “best-performing”. The number of the "
    "last block involves no choice."
)
PROBE = StudyText(
    "Linear probe",
    "What a model's frozen features say of every pixel: one linear layer is trained on the features of each block, the "
    "model itself is not. The score is mIoU, the mean overlap of what it marks with the true mask of each class.",
    "ViT-S/16 by DINO, a linear layer trained for 30 epochs on patch features (section 6.2.1, Tables 2 and 3)",
    (_BEST, "A score means nothing beside that of the most frequent class everywhere, which needs no features."),
)
TOKENCUT = StudyText(
    "Object discovery by TokenCut",
    "How often TokenCut finds an object by a model's features, without any training: it cuts an image's patches in two "
    "by their likeness. The score is CorLoc, the share of images whose box overlaps a true one by half or more.",
    "ViT-S/16 by DINO, the best-performing block (section 6.2.2)",
    (_BEST, "A score means nothing beside that of a box around the whole image, which needs no features."),
)
LOST = StudyText(
    "Object discovery by LOST",
    "How often LOST finds an object by a model's features, without any training: it grows a box from the patch that is "
    "like the fewest others. The score is CorLoc, the share of images whose box overlaps a true one by half or more.",
    "",
    (_BEST, "A score means nothing beside that of a box around the whole image, which needs no features."),
)
NEIGHBOURS = StudyText(
    "Nearest neighbours",
    "What a model's frozen features say of an image's class: each image gets the class that most of the training "
    "images with the most similar features have. Nothing is trained. The score is the share of images that get the "
    "right class.",
    "",
    (_BEST, "A score means nothing beside that of the largest class, which needs no features."),
)
CLASSIFIER = StudyText(
    "Linear classifier",
    "What a model's frozen features say of an image's class: one linear layer is trained on the features of each "
    "block, the model itself is not. The score is the share of images that get the right class.",
    "",
    (_BEST, "A score means nothing beside that of the largest class, which needs no features."),
)
TOP1 = StudyText(
    "Top-1 accuracy",
    "How many validation images a trained classifier gives the right class. The score is top-1, their share in per "
    "cent; top-5 counts an image whose class is among the five that the classifier finds most likely.",
    "",
    ("A score means nothing beside that of the largest class, which needs no classifier.",),
    "What the classifier gets right, beside what needs no classifier",
)
COLOURS = StudyText(
    "Features as colours",
    "The first three principal components of a model's patch features as red, green and blue. Patches of one colour "
    "have similar features.",
    "ViT-S/16 by DINO, the 11th of 12 blocks, the first validation images of COCO (section 6.3, Figures 4, 7 and 8)",
    (
        "Colours mean nothing but likeness within one column; those of two columns cannot be compared.",
        "The table says how much of the features' variance three colours can show.",
    ),
)

HELD_OUT = StudyText(
    "Held-out text",
    "How well a language model predicts text that it was not trained on. The score is bits per byte: what the text "
    "would take if the model's predictions compressed it, by the bytes of the text. It can be compared between "
    "tokenizers.",
    "Llama of 110 M parameters on C4 (section A.8), of which only zero-shot accuracies are stated",
    (
        "A score means little beside that of counts: a model that is no better than unigram counts has learned how "
        "frequent each token is, and nothing else.",
        "The sample is one draw.",
    ),
    "Bits per byte of the model, beside what counts of tokens reach",
)
ZERO_SHOT = StudyText(
    "Zero-shot tasks",
    "How often a language model finds the right answer of several, without any solved example. The answer with the "
    "highest log-likelihood counts. Questions are asked by the Language Model Evaluation Harness (lm-eval).",
    "Llama of 110 M parameters, C4, five tasks (section A.8, Table 7)",
    (
        "An accuracy means nothing beside chance, and beside that of the most frequent answer, which needs no model.",
        "The standard error is over questions alone: training again with another seed varies more.",
    ),
    "Accuracy with its standard error over questions, beside what needs no model",
)

QUANTISATION = StudyText(
    "Few bits",
    "What a model loses when its linear maps compute with rounded weights and activations, and what its activations "
    "are like: heavy tails and single large channels leave few steps of a grid to everything else. Rounding is "
    "simulated in floating point, and equals what integer kernels compute.",
    "",
    (
        "Accuracy at few bits depends on how the scales are chosen at least as much as on the model: compare models at "
        "one setting only.",
        "A model with skips can be rotated before it is rounded (--rotate hadamard). A claim that another model needs "
        "it less is to be compared with that.",
        "Four definitions of kurtosis stand side by side, because public code prints different ones under one name.",
    ),
    "The score by precision, beside what needs no model",
)


def trust(text: StudyText, origin: Origin, unusable: int, select: str = "") -> list[str]:
    """How far to trust a study's numbers, a sentence each.

    Args:
        text: of the study.
        origin: whose weights were measured.
        unusable: images that were left out.
        select: images that learning rates were chosen on; empty where none was.
    """
    said = [
        "One model of one seed: n = 1. Small differences mean nothing; models of other seeds say how much they vary."
    ]
    if origin.state == "untrained":
        said.append("These weights have seen no data. The numbers are what a trained model is to be compared with.")
    said += text.trust
    if select == "val":
        said.append(
            "Learning rates are chosen on the images that are also scored, as papers do, which makes scores too high; "
            "--select holdout chooses them on training images set aside."
        )
    if unusable:
        said.append(f"{counted(unusable, 'image')} could not be used and did not count; result.json says which.")
    return said
