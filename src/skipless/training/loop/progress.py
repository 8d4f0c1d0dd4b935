"""Progress of a run for the user: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as RichProgress, TextColumn, TimeRemainingColumn

from skipless.choices import ProgressKind

BAR_REFRESH_S = 0.2  # drawing costs about a millisecond
LINE_EVERY_S = 10.0
NAME_WIDTH = 12  # all of the bar's columns fit into 80 characters
_RATES = {"images_per_second": "img/s", "tokens_per_second": "tok/s"}


@runtime_checkable
class Progress(Protocol):
    """Shows the loop's progress; a context that is entered while the loop trains."""

    def __enter__(self) -> "Progress":
        """Show that training begins."""
        ...

    def __exit__(self, *error: object) -> None:
        """Leave the terminal tidy."""
        ...

    def advance(self, step: int) -> None:
        """Show that `step` steps are done; called after each of them."""
        ...

    def report(self, values: Mapping[str, Any]) -> None:
        """Show the latest logged values."""
        ...

    def note(self, text: str) -> None:
        """Show a line of text."""
        ...


class ProgressBar:
    """A progress bar with loss, accuracy or bits per byte, images or tokens a second, and the remaining time."""

    def __init__(self, name: str, steps: int, console: Console) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(name[-NAME_WIDTH:], total=steps, values="")
        self._drawn = 0.0

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.refresh()
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Redraw the bar, at most once every `BAR_REFRESH_S`."""
        now = time.monotonic()
        if now - self._drawn >= BAR_REFRESH_S:
            self._drawn = now
            self._bar.update(self._task, completed=step, refresh=True)

    def report(self, values: Mapping[str, Any]) -> None:
        """Show the values beside the bar."""
        self._bar.update(self._task, completed=values["step"], values=summary(values))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)


class ProgressLines:
    """Plain lines for logs and pipes: values at most every ten seconds, and every note; `silent` prints nothing."""

    def __init__(self, name: str, steps: int, console: Console, *, silent: bool = False) -> None:
        self._name = name
        self._steps = steps
        self._console = console
        self._silent = silent
        self._last_line = time.monotonic()

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def advance(self, step: int) -> None:
        """Do nothing: single steps have no line."""

    def report(self, values: Mapping[str, Any]) -> None:
        """Print the values, at most once every `LINE_EVERY_S`."""
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self.note(f"step {values['step']}/{self._steps}  {summary(values)}")

    def note(self, text: str) -> None:
        """Print a line."""
        if not self._silent:
            self._console.print(f"{self._name}: {text}", markup=False, highlight=False, soft_wrap=True)


def show_progress(kind: ProgressKind, name: str, steps: int) -> Progress:
    """Choose how to show progress, on stderr; `auto` is a bar on a terminal and lines elsewhere."""
    console = Console(stderr=True)
    if kind == "bar" or (kind == "auto" and console.is_terminal):
        return ProgressBar(name, steps, console)
    return ProgressLines(name, steps, console, silent=kind == "none")


def summary(values: Mapping[str, Any]) -> str:
    """Summarise logged values in a few words.

    Example:
        >>> summary({"step": 20, "loss": 2.30259, "accuracy": 0.125, "images_per_second": 3141.6})
        'loss 2.303  acc 12.5 %  3142 img/s'
        >>> summary({"step": 20, "loss": 2.30259, "bits_per_byte": 1.25, "tokens_per_second": 31415.9})
        'loss 2.303  1.250 bits/byte  31416 tok/s'
    """
    parts = [f"loss {values['loss']:.3f}"] if "loss" in values else []
    if "accuracy" in values:
        parts.append(f"acc {100 * values['accuracy']:.1f} %")
    if "bits_per_byte" in values:
        parts.append(f"{values['bits_per_byte']:.3f} bits/byte")
    for name, short in _RATES.items():
        if name in values:
            parts.append(f"{values[name]:.0f} {short}")
    return "  ".join(parts)
