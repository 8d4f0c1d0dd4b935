"""The language model of section A.8: next tokens, with skips and without, and Table 7."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.choices import PAPER_OPTIMIZERS, OptimizerName
from skipless.experiments.language.recipe import language
from skipless.experiments.language.scales import LANGUAGE_ROWS, LanguageRow, LanguageScale
from skipless.options import Option
from skipless.registry import Experiment, NamedRecipe, Report


@dataclass(frozen=True, kw_only=True)
class Options:
    """What Table 7 can be asked for.

    Attributes:
        scale: tiny (an hour of two cores), or paper (says what to run).
        rows: models; the paper's initialisation in three readings.
        optimizers: by which they are trained, adamw, soap, muon.
        seeds: runs a cell, with seeds 0, 1, ...
        steps: another length.
        tune: choose each cell's learning rate anew, on text that no number of the table is of.
        data: another text; required at paper.
        tokenizer: another tokenizer, a tokenizer.json, bytes or bpe-N; required at paper.
        tasks: zero-shot tasks besides, by lm-eval: boolq, hellaswag, winogrande, piqa, social_iqa.
        data_dir: folder of local copies of the tasks' data sets, D/boolq/... and so on.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    scale: LanguageScale = "tiny"
    rows: tuple[LanguageRow, ...] = LANGUAGE_ROWS
    optimizers: tuple[OptimizerName, ...] = PAPER_OPTIMIZERS
    seeds: int = 1
    steps: Annotated[int | None, Option("the scale's")] = None
    tune: bool = False
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    tokenizer: Annotated[str | None, Option("the scale's own", group="data")] = None
    tasks: tuple[str, ...] = ()
    data_dir: Annotated[Path | None, Option("the hub", group="data")] = None
    out: Annotated[Path | None, Option("runs/table7-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


def _make(options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.language.run import reproduce_table7

    return reproduce_table7(options, options.out or Path("runs") / f"table7-{options.scale}", command=command)


EXPERIMENT = Experiment(
    recipes={
        "language": NamedRecipe(
            language,
            examples=(
                "skipless train language --out runs/l1",
                "skipless train language --data 'c4/en/*.json.gz' --tokenizer tokenizer.json --skip --out runs/l2",
            ),
            paper="paper",
        ),
    },
    reports={
        "table7": Report(
            "Table 7: a language model with skips and without, on held-out text",
            Options,
            _make,
            examples=(
                "skipless reproduce table7 --steps 300 --seeds 3 --tune",
                "skipless reproduce table7 --rows skip 'skipless + init, sharp' --optimizers soap",
            ),
        ),
    },
)
