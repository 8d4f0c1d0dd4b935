"""Tables 5 and 6, Figures 5 and 6, and the paper's assumptions: conditioning before and through training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from skipless.experiments.conditioning.scales import AssumptionScale, ConditioningScale
from skipless.options import Option, refuse_given
from skipless.registry import Experiment, Report


@dataclass(frozen=True, kw_only=True)
class _RunOptions:
    """What is made from three runs, which all of these share.

    Attributes:
        seed: of weights, order and augmentation.
        epochs: another length.
        data: another place for the data.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    seed: int = 0
    epochs: Annotated[int | None, Option("the scale's")] = None
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/conditioning-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


@dataclass(frozen=True, kw_only=True)
class Options(_RunOptions):
    """What Tables 5 and 6 and Figure 6 can be asked for.

    Attributes:
        scale: digits (minutes) and fashion train three models, language three language models; init and vit-s measure
            before training; paper says what to run.
        steps: another length in optimizer steps.
    """

    scale: ConditioningScale = "digits"
    steps: Annotated[int | None, Option("the scale's")] = None


@dataclass(frozen=True, kw_only=True)
class AssumptionOptions(_RunOptions):
    """What the assumptions can be asked for.

    Attributes:
        scale: digits and fashion check three models before and after training, init before it.
        out: folder of report and runs.
    """

    scale: AssumptionScale = "digits"
    out: Annotated[Path | None, Option("runs/assumptions-SCALE", group="output")] = None


@dataclass(frozen=True, kw_only=True)
class SoftmaxOptions:
    """What Figure 5 can be asked for.

    Attributes:
        draws: of each kind.
        seed: of the draws.
        out: folder of the report.
    """

    draws: int = 200
    seed: int = 0
    out: Annotated[Path, Option(group="output")] = Path("runs/figure5")


def _tables(what: Literal["table5", "table6"], options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.conditioning.run import reproduce_tables

    return reproduce_tables(
        what, options.scale, _folder(what, options), **_runs(options), steps=options.steps, command=command
    )


def _figure6(options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.conditioning.run import reproduce_figure6

    out = _folder("figure6", options)
    return reproduce_figure6(options.scale, out, **_runs(options), steps=options.steps, command=command)


def _figure5(options: SoftmaxOptions, command: str) -> Mapping[str, Path]:
    from skipless.experiments.conditioning.softmax import reproduce_figure5

    return reproduce_figure5(options.out, draws=options.draws, seed=options.seed, command=command)


def _assumptions(options: AssumptionOptions, command: str) -> Mapping[str, Path]:
    from skipless.experiments.conditioning.assumptions import reproduce_assumptions

    if options.scale == "init":  # nothing is trained
        refuse_given("assumptions at init", jobs=options.jobs, epochs=options.epochs)
    out = options.out or Path("runs") / f"assumptions-{options.scale}"
    return reproduce_assumptions(options.scale, out, **_runs(options), command=command)


def _folder(what: str, options: Options) -> Path:
    if options.scale == "init":  # nothing is trained
        refuse_given(f"{what} at init", jobs=options.jobs, epochs=options.epochs, steps=options.steps)
    if options.scale == "vit-s":  # it is measured at pixels of its own, and not trained
        given = {"data": options.data, "jobs": options.jobs, "epochs": options.epochs, "steps": options.steps}
        refuse_given(f"{what} at vit-s", **given)
    if options.steps is not None:
        refuse_given(f"{what} where --steps is given", epochs=options.epochs)
    if options.scale == "language":  # its length is in steps
        refuse_given(f"{what} at language, which --steps makes longer or shorter", epochs=options.epochs)
    return options.out or Path("runs") / f"conditioning-{options.scale}"


def _runs(options: Options | AssumptionOptions) -> dict:
    return {"seed": options.seed, "data": options.data, "jobs": options.jobs, "epochs": options.epochs}


EXPERIMENT = Experiment(
    reports={
        "table5": Report(
            "Table 5: condition number of the network's Jacobian through training",
            Options,
            partial(_tables, "table5"),
            examples=("skipless reproduce table5", "skipless reproduce table5 --scale vit-s"),
        ),
        "table6": Report(
            "Table 6: condition number of each attention's Jacobian through training",
            Options,
            partial(_tables, "table6"),
            examples=("skipless reproduce table6", "skipless reproduce table6 --scale language"),
        ),
        "figure5": Report(
            "Figure 5: condition number of a softmax matrix, peaked and diffuse",
            SoftmaxOptions,
            _figure5,
            examples=("skipless reproduce figure5", "skipless reproduce figure5 --draws 1000 --seed 1"),
        ),
        "figure6": Report(
            "Figure 6: distribution of the tokens before and after training",
            Options,
            _figure6,
            examples=("skipless reproduce figure6", "skipless reproduce figure6 --scale init"),
        ),
        "assumptions": Report(
            "Eqs. 6 and 37, which the paper assumes, measured",
            AssumptionOptions,
            _assumptions,
            examples=("skipless reproduce assumptions", "skipless reproduce assumptions --scale init"),
        ),
    },
)
