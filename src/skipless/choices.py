"""Names that options take, as types: what the library and its command line must spell alike. Imports nothing."""

from typing import Literal, get_args

# The models of tables: with skip connections, without, without but with the paper's initialisation, and with ours
Row = Literal["skip", "skipless", "skipless + init", "skipless + ours"]
ALL_ROWS: tuple[Row, ...] = get_args(Row)
ROWS: tuple[Row, ...] = ALL_ROWS[:3]  # those of the paper's tables

# Initialisation
Preset = Literal["vit_base", "dino_vit_small", "language"]
Factors = Literal["per_head", "sliced", "partition"]
Noise = Literal["normal", "uniform"]
LogitScale = Literal["kept", "compensated"]
MLPInit = Literal["orthogonal", "mirrored", "kept"]
Gates = Literal["independent", "equal"]
Grouped = Literal["refused", "repeated"]
Positions = Literal["kept", "orthogonal", "smooth"]

# What stands for the softmax
AttentionName = Literal["softmax", "polynomial", "shaped", "v-skipinit", "e-spa", "u-spa", "orthogonal"]
PolynomialScale = Literal["visible", "learned", "solved"]
QueryStart = Literal["kept", "zero"]

# Training
OptimizerName = Literal["adamw", "soap", "muon"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
PAPER_OPTIMIZERS: tuple[OptimizerName, ...] = OPTIMIZERS[:2]  # those of the paper's tables
Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Strategy = Literal["auto", "ddp", "fsdp"]
SharedStrategy = Literal["ddp", "fsdp"]
ProgressKind = Literal["auto", "bar", "lines", "none"]
Measured = Literal["conditioning", "activations"]

# Data
SegmentationName = Literal["voc", "ade20k", "ade20k-full", "coco-stuff", "coco-stuff-27"]
BoxName = Literal["voc07", "voc12", "coco20k"]
SceneLayout = Literal["voc", "ade20k", "coco", "imagenet"]
SceneObjects = Literal["auto", "fashion", "digits"]
SceneShapes = Literal["square", "mixed"]
SceneColours = Literal["any", "class"]
CropMode = Literal["exact", "fast"]
Documents = Literal["auto", "file", "paragraph", "line"]

# Features and what is made of them
ModelState = Literal["trained", "untrained", "teacher"]  # whose weights are looked into
Kind = Literal["tokens", "q", "k", "v"]
Norm = Literal["final", "none"]
Pooling = Literal["class", "mean"]
Select = Literal["val", "holdout"]
Protocol = Literal["paper", "dinov2", "patch"]
MULTISCALE = (-4, -3, -2, -1)  # the last four blocks: DINOv2's, and the default here

# Conditioning
TokensAt = Literal["normed", "raw", "gaussian"]
SpectrumMethod = Literal["auto", "dense", "gram", "lanczos", "inverse"]


def slug(name: str) -> str:
    """A row's name as part of a path.

    Example:
        >>> slug("skipless + init")
        'skipless-init'
    """
    return name.replace(" + ", "-")
