"""`skipless eval SOURCE quantisation`: a model at few bits, and its activations."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from skipless.choices import Device, Documents
from skipless.cli.listing import examples
from skipless.cli.signature import Argument, arguments_of, build
from skipless.options import Option
from skipless.studies.config import QuantisationConfig


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Which model, which data, and where results go.

    Attributes:
        source: a run folder of skipless train, of a language model too; timm's name of a vision transformer; a folder
            that Hugging Face's save_pretrained has written; or a file of weights.
        model: timm's name of what a file of weights is of, where the file does not say it.
        weights: other weights, a safetensors file.
        pretrained: take timm's pretrained weights.
        data: images or text to measure on, as for skipless train.
        tokenizer: of a language model, a tokenizer.json, a folder that holds one, or bytes.
        documents: what a document is in another text.
        out: where results go.
        device: where to compute.
    """

    source: Annotated[str, Option(positional=True)]
    model: Annotated[str | None, Option("the file says it", group="model")] = None
    weights: Annotated[Path | None, Option("the run's last", group="model")] = None
    pretrained: Annotated[bool, Option(group="model")] = False
    data: Annotated[str | None, Option("the run's own", group="data")] = None
    tokenizer: Annotated[str | None, Option("the model's own", group="data")] = None
    documents: Annotated[Documents | None, Option("the run's own, or auto", group="data")] = None
    out: Annotated[Path | None, Option("eval/ in the run's folder, or eval/MODEL here", group="output")] = None
    device: Annotated[Device, Option(group="machine")] = "auto"


DESCRIPTION = (
    "Score a model with rounded weights and activations, and measure its activations: kurtosis, histograms, signal "
    "over quantisation noise. A classifier's run is scored by top-1, a language model by bits per byte, any other "
    "model by nearest neighbours and a linear probe of its last block.\n\n"
    "What is done is kept, and the same command goes on.\n\n"
    + examples(
        (
            "skipless eval runs/s1 quantisation",
            "skipless eval runs/s1 quantisation --rotate hadamard",
            "skipless eval vit_small_patch16_224 quantisation --pretrained --data imagenet/ --precisions W8A8 W4A4",
        )
    )
)


def quantisation_arguments() -> list[Argument]:
    """What it can be asked for."""
    return [*arguments_of(_Source), *arguments_of(QuantisationConfig)]


def evaluate_quantisation(values: Mapping[str, Any], command: str) -> None:
    """Measure the model that is asked for, and say what was found."""
    from skipless.recipes import open_model
    from skipless.recipes.export import open_source
    from skipless.studies import quantisation_study
    from skipless.studies.origin import Origin
    from skipless.studies.study_folder import rank_and_world_size
    from skipless.training.processes.launch import launch

    config = build(QuantisationConfig, values)
    fabric = launch(values["device"], "fp32")
    given = {"weights": values["weights"], "pretrained": values["pretrained"], "seed": values["seed"]}
    name = values["source"]
    folder = Path(name.removeprefix("hf:")).expanduser().is_dir()  # perhaps of a language model
    source = open_model(name, **given) if folder else open_source(name, values["model"], **given)
    fabric.to_device(source.model)
    home = source.folder / "eval" if source.recipe is not None and source.folder is not None else None
    out = values["out"] or home or Path("eval") / source.name
    data = {one: values[one] for one in ("data", "tokenizer", "documents")}
    found = quantisation_study(source, config, **data, out=out, origin=Origin(source.state, command))
    if rank_and_world_size()[0] == 0:
        assert found.folder is not None
        print(f"{found}\n\nwrote {found.folder / 'index.html'}")
