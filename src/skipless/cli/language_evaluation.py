"""`skipless eval SOURCE language`: held-out text without --tasks, zero-shot tasks with them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from skipless.choices import Device, Documents
from skipless.cli.listing import examples
from skipless.cli.signature import Argument, arguments_of, build
from skipless.errors import InputError
from skipless.options import Option, refuse_given
from skipless.studies.config import HeldOutConfig, ZeroShotConfig

if TYPE_CHECKING:
    from skipless.studies import HeldOutResult, ZeroShotResult


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Which model, which data, and where results go.

    Attributes:
        source: a run folder of skipless train language, or a folder of a causal model that Hugging Face's
            save_pretrained has written.
        weights: other weights, a safetensors file.
        data: text to measure on, as for skipless train language.
        tokenizer: a tokenizer.json, a folder that holds one, or bytes.
        documents: what a document is in another text: a file, a paragraph or a line.
        data_dir: folder of local copies of the tasks' data sets, boolq/validation.jsonl or .parquet; no network is
            used then.
        out: where results go.
        device: where to compute.
    """

    source: Annotated[str, Option(positional=True)]
    weights: Annotated[Path | None, Option("the run's last", group="model")] = None
    data: Annotated[str | None, Option("the run's own", group="data")] = None
    tokenizer: Annotated[str | None, Option("the model's own", group="data")] = None
    documents: Annotated[Documents | None, Option("the run's own, or auto", group="data")] = None
    data_dir: Annotated[Path | None, Option("the hub", group="data")] = None
    out: Annotated[Path | None, Option("eval/ in the run's folder, or eval/MODEL here", group="output")] = None
    device: Annotated[Device, Option(group="machine")] = "auto"


_PARTS = {"held_out_text": HeldOutConfig, "zero_shot": ZeroShotConfig}
_SHARED = ("context",)
DESCRIPTION = (
    "Measure a language model: bits per byte of held-out text beside what counts of tokens reach, and a sample; or, "
    "with --tasks, zero-shot accuracies by lm-eval, beside chance and the most frequent answer.\n\n"
    "What is done is kept, and the same command goes on.\n\n"
    + examples(
        (
            "skipless eval runs/l1 language",
            "skipless eval runs/l1 language --tasks boolq,hellaswag,winogrande,piqa,social_iqa --data-dir tasks/",
            "skipless eval checkpoints/llama language --data pydoc",
        )
    )
)


def language_arguments() -> list[Argument]:
    """What it can be asked for."""
    found = arguments_of(_Source)
    for group, config in _PARTS.items():
        for one in arguments_of(config):
            shared = one.name in _SHARED
            shown = one.shown if shared else replace(one.shown, group=one.shown.group or group)
            found.append(replace(one, shown=shown))
    return list({argument.name: argument for argument in reversed(found)}.values())[::-1]


def evaluate_language(values: Mapping[str, Any], command: str) -> None:
    """Measure the model that is asked for, and say what was found."""
    from skipless.studies.study_folder import rank_and_world_size

    tasks = tuple(task for word in values["tasks"] for task in word.split(",") if task)
    _refuse_unused(values, tasks)
    found = _measured({**values, "tasks": tasks}, command)
    if rank_and_world_size()[0] == 0:
        assert found.folder is not None
        print(f"{found}\n\nwrote {found.folder / 'index.html'}")


def _measured(values: Mapping[str, Any], command: str) -> "HeldOutResult | ZeroShotResult":
    from skipless.recipes import open_model
    from skipless.studies import Published, held_out_text, zero_shot
    from skipless.studies.origin import Origin
    from skipless.training.processes.launch import launch

    if not Path(values["source"].removeprefix("hf:")).expanduser().is_dir():
        raise InputError(
            f"there is no folder {values['source']!r}: give a run of `skipless train language`, or a model"
        )
    fabric = launch(values["device"], "fp32")
    source = open_model(values["source"], weights=values["weights"])
    fabric.to_device(source.model)
    assert source.folder is not None
    out = values["out"] or (Path("eval") / source.name if source.recipe is None else source.folder / "eval")
    shared = {"tokenizer": values["tokenizer"], "out": out, "origin": Origin(source.state, command)}
    if not values["tasks"]:
        of = {"data": values["data"], "documents": values["documents"]}
        return held_out_text(source, build(HeldOutConfig, values), **of, **shared)
    from skipless.experiments.language.paper import PAPER_SETTING, PAPER_TABLE7, QUESTIONS

    published = Published(
        {f"paper, {row}": {**of} for row, of in PAPER_TABLE7.items()},
        {**QUESTIONS},
        f"Table 7, {PAPER_SETTING}",
    )
    config = build(ZeroShotConfig, values)
    return zero_shot(source, config, data_dir=values["data_dir"], published=published, **shared)


def _refuse_unused(values: Mapping[str, Any], tasks: tuple[str, ...]) -> None:
    """Refuse options of the other part, which would change nothing."""
    defaults = {name: vars(config()) for name, config in (("text", HeldOutConfig), ("tasks", ZeroShotConfig))}
    other, where = ("text", "zero-shot tasks") if tasks else ("tasks", "held-out text (--tasks asks for them)")
    given = {name: values[name] for name, value in defaults[other].items() if values[name] != value}
    given |= {name: values[name] for name in (("data", "documents") if tasks else ("data_dir",))}
    refuse_given(where, **{name: value for name, value in given.items() if name not in (*_SHARED, "tasks")})
