"""What reports of section 6.2 say in words: titles, settings, where ours differs, and how far to trust it."""

from skipless.display.values import counted
from skipless.experiments.dense.pretraining.runs import early_epoch
from skipless.experiments.dense.scale import SCENES
from skipless.experiments.dense.scores.record import DenseRuns
from skipless.experiments.dense.what import BY_DEPTH, PICTURES, DenseWhat, kind_of
from skipless.init import SkiplessInit
from skipless.recipes.self_supervised import DinoRecipe

PAPER_SETTING = "ViT-S/16 of 12 blocks, DINO on ImageNet-1k, 300 epochs"

METRICS = {
    "masks": "mIoU in per cent of a linear head on frozen patch features",
    "boxes": "CorLoc in per cent of TokenCut: images whose box has an IoU of at least 0.5 with an object",
}
_SIX = "pretrained by DINO with and without their skip connections, by AdamW and by SOAP"
_DEPTH = "pretrained by DINO without skip connections in fewer blocks, beside one of full depth with them"
_COLOURS = (
    "The first three principal components of patch features as red, green and blue, on the first validation images of "
    "COCO in the order of their names. Components are of the shown images together, for each model on its own."
)
DESCRIPTIONS: dict[DenseWhat, str] = {
    "table2": f"What each model's frozen features say of every pixel: vision transformers {_SIX}.",
    "table3": f"What each model's frozen features say of every pixel: vision transformers {_DEPTH}.",
    "table4": f"How often TokenCut finds an object by a model's features: vision transformers {_DEPTH}.",
    "figure2": f"What frozen features say of every pixel as pretraining goes on: vision transformers {_SIX}.",
    "figure3": f"How often TokenCut finds an object by a model's features: vision transformers {_SIX}.",
    "figure4": f"{_COLOURS} The paper shows the 11th of 12 blocks, here the last but one.",
    "figure7": f"{_COLOURS} The paper shows the 11th of 12 blocks, here the last but one.",
    "figure8": f"{_COLOURS} All blocks of each model.",
    "figure9": f"The loss of the student through training: vision transformers {_SIX}.",
}


def our_setting(runs: DenseRuns) -> str:
    """Ours in a few words."""
    recipe = runs.recipe
    return f"{_model(recipe)}, DINO on {_data(runs)}, {counted(recipe.fit.epochs, 'epoch')}"


def differences(runs: DenseRuns) -> list[str]:
    """What is otherwise than in the paper."""
    if runs.scale.name == "scenes":
        said = _differences_at_scenes(runs)
    else:
        said = ["The paper names the model, α, β, c and 300 epochs; all else is the published DINO's: see the docs."]
    if kind_of(runs.what) in ("masks", "boxes"):
        said.append(
            f"Epoch {early_epoch(runs.recipe)} of {runs.recipe.fit.epochs} stands for the paper's 200 of 300. "
            "“skipless + init” is what the paper calls skipless; it shows neither skipless models without the "
            "initialisation nor untrained ones."
        )
    return said


def _differences_at_scenes(runs: DenseRuns) -> list[str]:
    recipe, plan, kind = runs.recipe, SCENES["imagenet"], kind_of(runs.what)
    crops = recipe.crops
    said = [
        f"The model is a {_model(recipe)}, not ViT-S/16 (12 blocks, width 384), pretrained on {plan.train:,} "
        f"generated scenes for {counted(recipe.fit.epochs, 'epoch')}, not on 1.28 million photos for 300; crops have "
        f"{crops.global_size} and {crops.local_size} pixels, not 224 and 96."
    ]
    if {member.optimizer for member in runs.recipes} == {"soap"}:
        said.append("The optimizer is SOAP, by which this scale learns in minutes; the paper's here is AdamW.")
    if kind:
        said.append(
            "The data sets are generated scenes, written in the layouts of VOC2012, COCO and ADE20K: real objects "
            "on real photos, the same kinds in all three. The names are those of the layouts."
        )
    init = next((r.model.init for r in runs.recipes.values() if r.model.init is not None), None)
    if init is not None:
        paper = SkiplessInit.preset("dino_vit_small")
        said.append(
            f"The initialisation has α = {init.alpha:g}, β = {init.beta:g}, c = {init.c:g}, which suit this width; "
            f"the paper's has {paper.alpha:g}, {paper.beta:g}, {paper.c:g}."
        )
    if kind == "masks":
        probe = runs.scale.probe
        said.append(
            f"The linear probe is the protocol “{probe.protocol}” at {recipe.data.image_size} pixels, epochs: "
            f"{probe.epochs} (docs: evaluate), and COCO-Stuff has its 27 coarse classes; the paper's has 30 epochs."
        )
    return said


def notes(runs: DenseRuns) -> list[str]:
    """How far to trust the numbers."""
    said = []
    seeds = {member.seed for member in runs.recipes}
    if runs.scale.name == "scenes":
        said.append("Compare orders and gaps with the paper's, not values: the two settings have nothing in common.")
    if len(seeds) == 1 and runs.what not in PICTURES:
        said.append("One seed a model: how far seeds move a score is not known; --seeds 3 shows it.")
    rates = {f"{recipe.optimizer.lr:g}" for recipe in runs.recipes.values()}
    said.append(f"Peak learning rates: {', '.join(sorted(rates))}; the paper states none. See the table of runs.")
    images = {found.n for found in runs.scores.values() if found is not None}
    if images:
        said.append(
            f"Scores are on {' or '.join(map(str, sorted(images)))} images a data set; pretraining saw none of them."
        )
    unusable = sum(found.unusable for found in runs.scores.values() if found is not None)
    if unusable:
        said.append(
            f"{unusable} images could not be used, over all evaluations; found.json beside each names how many."
        )
    if runs.what in BY_DEPTH:
        said.append(
            "The paper's tables by depth are said to be of the checkpoint at 200 epochs, but repeat their skip row "
            "from 300 epochs, and Table 4 its row of 12 blocks, too: ours stand at both epochs, the paper's numbers "
            "each at its own."
        )
    if runs.what in PICTURES:
        said.append("Pictures show one seed. Colours have no meaning across columns, and none but likeness within one.")
    collapsed = [one for one in runs.pretrained if one.run.diverged]
    if collapsed:
        said.append(
            f"{len(collapsed)} of {len(runs.pretrained)} runs stopped before their end; the table of runs says why."
        )
    return said


def _model(recipe: DinoRecipe) -> str:
    sizes = recipe.model.kwargs
    return recipe.model.title if "embed_dim" in sizes else f"ViT-S/16 of {sizes['depth']} blocks"


def _data(runs: DenseRuns) -> str:
    return "generated scenes" if runs.scale.name == "scenes" else "ImageNet-1k"
