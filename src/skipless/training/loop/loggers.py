"""Logging to TensorBoard and Weights & Biases, both optional."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from skipless.display.values import place_name
from skipless.errors import InputError
from skipless.optional import how_to_install

Logger = Callable[[int, Mapping[str, float | int]], None]


@contextmanager
def open_loggers(
    folder: Path, record: Mapping[str, Any], step: int, *, tensorboard: bool, wandb: bool
) -> Iterator[Logger]:
    """Yield a function that sends the named values of a step to the chosen loggers.

    Args:
        folder: the run folder.
        record: contents of `run.json`.
        step: step at which the run starts or resumes. TensorBoard's later values are dropped.
        tensorboard: write event files to `folder/tensorboard`.
        wandb: send values to Weights & Biases. A resumed run keeps its id.

    Raises:
        InputError: if a library is not installed.
    """
    loggers: list[Logger] = []
    with ExitStack() as stack:
        if tensorboard:
            loggers.append(_tensorboard(folder, step, stack))
        if wandb:
            loggers.append(_wandb(folder, record, stack))

        def log(step: int, values: Mapping[str, float | int]) -> None:
            for logger in loggers:
                logger(step, values)

        yield log


def _tensorboard(folder: Path, step: int, stack: ExitStack) -> Logger:
    try:
        from torch.utils.tensorboard import SummaryWriter  # optional
    except ImportError as error:
        raise InputError(f"TensorBoard is not installed: {how_to_install('tensorboard')}") from error
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
    stack.callback(writer.close)

    def log(step: int, values: Mapping[str, float | int]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return log


def _wandb(folder: Path, record: Mapping[str, Any], stack: ExitStack) -> Logger:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"Weights & Biases is not installed: {how_to_install('wandb')}") from error
    name = str(folder.resolve())
    run = wandb.init(
        project="skipless",
        name=place_name(folder),
        id=hashlib.sha256(name.encode()).hexdigest()[:16],
        dir=str(folder),
        config=dict(record),
        resume="allow",
    )
    stack.callback(run.finish)

    def log(step: int, values: Mapping[str, float | int]) -> None:
        run.log(dict(values), step=step)

    return log
