"""`skipless eval SOURCE STUDY`: the studies are the library's own."""

import importlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from skipless.choices import Device
from skipless.cli.language_evaluation import DESCRIPTION, evaluate_language, language_arguments
from skipless.cli.listing import examples, listed
from skipless.cli.loading import RUNS, load
from skipless.cli.numbers import words as named_numbers
from skipless.cli.parse import asks_for_help, choose, holders, parse, positional, told
from skipless.cli.quantisation_evaluation import (
    DESCRIPTION as OF_BITS,
    evaluate_quantisation,
    quantisation_arguments,
)
from skipless.cli.signature import Argument, arguments_of, build
from skipless.errors import InputError
from skipless.options import Option
from skipless.studies.named import STUDIES, Study

if TYPE_CHECKING:
    from skipless.studies.comparison.asked import Told

TOP1 = "top1"
LANGUAGE = "language"
QUANTISATION = "quantisation"
_TITLES = {
    TOP1: "accuracy of a run's own classifier (the default)",
    **{name: study.title for name, study in STUDIES.items()},
    LANGUAGE: "a language model: held-out text, or zero-shot tasks (Table 7)",
    QUANTISATION: "few bits: the score at each precision, kurtosis, histograms, quantisation noise",
}


@dataclass(frozen=True, kw_only=True)
class _Top1:
    """What `top1` can be asked for.

    Attributes:
        source: a run folder of skipless train.
        data: digits, fashion, or a folder.
        weights: other weights than the run's last, a safetensors file.
        out: where results go.
        device: where to compute.
    """

    source: Annotated[Path, Option(positional=True)]
    data: Annotated[str | None, Option("the run's own", group="data")] = None
    weights: Annotated[Path | None, Option("the run's last", group="model")] = None
    out: Annotated[Path | None, Option("eval/ in the run's folder", group="output")] = None
    device: Annotated[Device, Option(group="machine")] = "auto"


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Which model, and where results go.

    Attributes:
        source: a run folder of skipless train, timm's name of a vision transformer (torchvision's as
            torchvision:vit_b_16), a folder that Hugging Face's save_pretrained has written, or a file of weights: what
            skipless export wrote, or a published DINO checkpoint (.pth), of which nothing is run.
        model: timm's name of what a file of weights is of, where the file does not say it.
        weights: other weights, a safetensors file.
        pretrained: take timm's pretrained weights.
        out: where results go.
        device: where to compute.
        seed: of samples, heads, and a timm model without weights.
    """

    source: Annotated[str, Option(positional=True)]
    model: Annotated[str | None, Option("the file says it", group="model")] = None
    weights: Annotated[Path | None, Option("the run's last", group="model")] = None
    pretrained: Annotated[bool, Option(group="model")] = False
    out: Annotated[Path | None, Option("eval/ in the run's folder, or eval/MODEL here", group="output")] = None
    device: Annotated[Device, Option(group="machine")] = "auto"
    seed: int = 0


_BASELINES = Argument("baselines", bool, True, "measure a run's untrained model too.", Option(), False)


def main(words: list[str]) -> None:
    """Measure what a model, or each of its blocks, is worth; what is done is kept, and the same command goes on."""
    if not words or (asks_for_help(words) and not any(word in _TITLES for word in words)):
        told(_HELP.format(studies=listed(_TITLES)), words)
    candidates = {TOP1: arguments_of(_Top1), **{one: _arguments(study) for one, study in STUDIES.items()}}
    candidates[LANGUAGE] = language_arguments()
    candidates[QUANTISATION] = quantisation_arguments()
    _refuse_no_source(words, candidates)
    name, rest = choose("eval", words, candidates, after=0 if asks_for_help(words) else 1)
    name = name or TOP1
    command = shlex.join(["skipless", "eval", *words])
    prog, elsewhere = f"skipless eval SOURCE {name}", holders(candidates, name)
    if name == TOP1:
        lines = ("skipless eval runs/s1 top1", "skipless eval runs/s1 top1 --data imagenet/")
        description = f"Accuracy of a run's own classifier on validation images.\n\n{examples(lines)}"
        _top1(parse(candidates[TOP1], rest, prog=prog, description=description, elsewhere=elsewhere), command)
        return
    if name in _OWN:
        about, evaluate = _OWN[name]
        values = parse(candidates[name], rest, prog=prog, description=about, elsewhere=elsewhere)
        load(*RUNS)
        evaluate(values, command)
        return
    study = STUDIES[name]
    description = (
        f"Measure a model by its features: {study.title}.\n\nWhat is done is kept, and the same command goes on.\n\n"
        f"{examples(study.examples)}"
    )
    values = parse(candidates[name], rest, prog=prog, description=description, elsewhere=elsewhere)
    load(*RUNS)
    _compare(name, study, values, command)


_OWN = {LANGUAGE: (DESCRIPTION, evaluate_language), QUANTISATION: (OF_BITS, evaluate_quantisation)}


def _refuse_no_source(words: list[str], candidates: dict[str, list[Argument]]) -> None:
    places = positional(words, [argument for options in candidates.values() for argument in options])
    first = words[places[0]] if len(places) == 1 else ""
    if first in candidates and not asks_for_help(words) and not Path(first).exists():
        raise InputError(f"what shall be measured? `skipless eval SOURCE {first}`, where SOURCE is a run or a model")


def _top1(values: dict[str, Any], command: str) -> None:
    load(*RUNS)
    from skipless.studies.study_folder import rank_and_world_size
    from skipless.studies.top1 import top1_of_run

    given = {name: values[name] for name in ("data", "weights", "device", "out")}
    found = top1_of_run(values["source"], **given, command=command)
    if rank_and_world_size()[0] == 0:
        assert found.folder is not None
        print(f"{named_numbers(found.scores)}\nwrote {found.folder / 'index.html'}")


def _compare(name: str, study: Study, values: dict[str, Any], command: str) -> None:
    """The model that was named, its untrained one, and others beside it, through one study."""
    from skipless.recipes import open_model
    from skipless.recipes.export import open_source
    from skipless.studies.comparison.asked import Comparison
    from skipless.studies.study_folder import rank_and_world_size
    from skipless.training.processes.launch import launch

    config = build(study.config, values, study.fixed)
    fabric = launch(values["device"], "fp32")
    source, weights, seed = values["source"], values["weights"], values["seed"]
    first = open_source(source, values["model"], weights=weights, pretrained=values["pretrained"], seed=seed)
    sources = [first, *(open_source(other, seed=seed) for other in values.get("versus", ()))]
    if values.get("baselines") and first.recipe is not None:
        sources.append(open_model(source, weights=weights, untrained=True))
    for each in sources:
        fabric.to_device(each.model)
    home = values["out"] or (Path(source) / "eval" if first.recipe is not None else Path("eval") / first.name)
    chosen = {"sample": values.get("sample"), "dataset": values.get("dataset")}
    asked = Comparison(name, sources, values["data"], home, seed, **chosen, command=command)
    module, _, function = study.compare.partition(":")
    told: list[Told] = []
    for part in getattr(importlib.import_module(module), function)(asked, config):
        told.append(part)
        if rank_and_world_size()[0] == 0:
            print(part.text, end="\n\n", flush=True)
    if rank_and_world_size()[0] == 0:
        print("\n".join([*(f"wrote {part.page}" for part in told if part.page is not None), f"results: {home}"]))


def _arguments(study: Study) -> list[Argument]:
    found = [*arguments_of(_Source), *arguments_of(study.data), *arguments_of(study.config, study.fixed)]
    found += [_BASELINES] * study.untrained
    return list({argument.name: argument for argument in reversed(found)}.values())[::-1]


_HELP = """\
usage: skipless eval SOURCE [STUDY] [OPTIONS]

Measure what a model, or each of its blocks, is worth; what is done is kept, and the same command goes on. SOURCE is a
run folder, timm's name of a vision transformer (torchvision's as torchvision:vit_b_16), a folder that Hugging Face's
save_pretrained has written, or a file of weights.

{studies}

`skipless eval SOURCE STUDY --help` says what a study takes."""
