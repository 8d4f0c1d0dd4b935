"""`skipless train RECIPE`: the recipes are the experiments' own."""

import sys

from skipless.cli.listing import examples
from skipless.cli.loading import RUNS, load
from skipless.cli.named_recipe import OUT, THREADS, chosen_recipe, parsed_recipe, use_threads
from skipless.cli.numbers import words as named_numbers
from skipless.cli.signature import summary
from skipless.registry import recipes


def main(words: list[str]) -> None:
    """Train one model; the same command with the same --out resumes it."""
    name, rest = chosen_recipe("train", words)
    named = recipes()[str(name)]
    description = (
        f"{summary(named.make)}\n\nThe same command with the same --out goes on where it was cut off.\n\n"
        f"{examples(named.examples)}"
    )
    made, values = parsed_recipe(named, rest, (OUT, THREADS), prog=f"skipless train {name}", description=description)
    load(*RUNS)
    use_threads(values["threads"])
    from skipless import recipes as running
    from skipless.training.processes.launcher import rank_and_world_size

    first = rank_and_world_size()[0] == 0
    for remark in named.remarks(made) if first and not (values["out"] / "result.json").exists() else ():
        print(f"note: {remark}", file=sys.stderr)
    result = running.run(made, values["out"])
    if first:
        print(f"{values['out']}: {result.work}  {named_numbers(result.metrics)}")
