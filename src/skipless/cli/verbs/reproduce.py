"""`skipless reproduce REPORT`: the reports are the experiments' own."""

from skipless.cli.listing import examples, listed
from skipless.cli.loading import RUNS, load
from skipless.cli.parse import asks_for_help, choose, holders, parse, told
from skipless.cli.signature import arguments_of, build
from skipless.errors import InputError
from skipless.options import stated_command
from skipless.registry import reports


def main(words: list[str]) -> None:
    """Make a table or figure: run what is missing, resume what was cut off, write the report."""
    known = reports()
    candidates = {one: arguments_of(report.options) for one, report in known.items()}
    name, rest = choose("reproduce", words, candidates)
    if name is None:
        if words and not asks_for_help(words):
            raise InputError(f"`skipless reproduce` which? There is {', '.join(known)}")
        told(_HELP.format(reports=listed({one: report.title for one, report in known.items()})), words)
    report = known[name]
    prog = f"skipless reproduce {name}"
    description = f"{report.title}.\n\nWhat is missing is run, what was cut off goes on.\n\n{examples(report.examples)}"
    values = parse(candidates[name], rest, prog=prog, description=description, elsewhere=holders(candidates, name))
    load(*RUNS)
    files = report.make(build(report.options, values), stated_command(tuple(prog.split()), report.options, values))
    print(next(path for path in files.values() if path.suffix == ".md").read_text(encoding="utf-8"))
    print("\n".join(f"wrote {path}" for path in files.values()))


_HELP = """\
usage: skipless reproduce REPORT [OPTIONS]

Make a table or figure of the paper: run what is missing, resume what was cut off, write the report.

{reports}

`skipless reproduce REPORT --help` says what a report takes."""
