"""The language model of section A.8: next tokens, with skips and without. Table 7 itself is not here yet."""

from skipless.experiments.language.recipe import language
from skipless.registry import Experiment, NamedRecipe

EXPERIMENT = Experiment(
    recipes={
        "language": NamedRecipe(
            language,
            examples=(
                "skipless train language --out runs/l1",
                "skipless train language --data 'c4/en/*.json.gz' --tokenizer tokenizer.json --skip --out runs/l2",
            ),
        ),
    },
)
