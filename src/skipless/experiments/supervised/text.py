"""What the report of Table 1 says in words."""

from skipless.recipes.recipe import Recipe

DESCRIPTION = (
    "Six runs of one vision transformer: with its skip connections, without them, and without them but started by the "
    "paper's initialisation, each trained by AdamW and by SOAP. The paper's claim is that the last of these trains as "
    "well as a residual model."
)


def notes(recipe: Recipe, seeds: int, images: int, *, as_tuned: bool) -> list[str]:
    """What a reader must know to trust the numbers neither too much nor too little."""
    said = [f"Accuracies are on {images} images that no run was trained on; the last epoch counts."]
    if recipe.scale == "paper":
        said.append("Learning rates were not tuned here: 4e-3 for AdamW as in the recipe, 3e-3 for SOAP.")
    else:
        tuned = "" if as_tuned else "the recipe's own data and length, not for these: "
        said.append(f"Learning rates were tuned for every cell on images held out of training; {tuned}see LOG.md.")
        said.append("The paper's numbers are of ViT-B on ImageNet-1k: compare orders and gaps, not values.")
    if seeds == 1:
        said.append("One seed a cell: differences of a point or two mean nothing; --seeds 3 gives spreads.")
    if recipe.fit.device == "cpu":
        said.append("Every run had one thread: the numbers repeat exactly on one kind of machine.")
    return said
