"""Progress on standard error: a bar on a terminal or in a notebook, otherwise a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

LINE_EVERY_S = 10.0

Report = Callable[[int, int], None]


@contextmanager
def progress_bar(
    what: str, unit: str = "", *, show: bool = True, after: float = 0.0, lines: bool = True
) -> Iterator[Report]:
    """Yield a function `report(done, total)` that updates the display.

    Args:
        what: what is being done, in a few words.
        unit: what is counted, images or steps; empty where the words say it.
        show: whether anything is shown. Of several processes, only the first shows it.
        after: seconds from now before which nothing is shown.
        lines: whether lines are written where there is neither a terminal nor a notebook.
    """
    if not (show and _is_first_process()):
        yield lambda done, total: None
        return
    begin = time.perf_counter()
    shown: Report | None = None
    with ExitStack() as stack:

        def report(done: int, total: int) -> None:
            nonlocal shown
            if shown is None and time.perf_counter() - begin >= after:
                shown = _bar(what, unit, stack) or (
                    _line_reporter(what, unit, begin) if lines else lambda done, total: None
                )
            if shown is not None:
                shown(done, total)

        if not after:
            report(0, 0)
        yield report


def tell_kept(what: str, kept: int, total: int, unit: str, *, show: bool = True) -> None:
    """Say on standard error how much of some work was found done, if any was.

    Args:
        what: what is being done, in a few words.
        kept: how much of it is done.
        total: how much there is of it.
        unit: what is counted: images.
        show: whether anything is shown.
    """
    if kept and show and _is_first_process():
        print(f"{what}: {kept} of {total} {unit} from before", file=sys.stderr, flush=True)


def _is_first_process() -> bool:
    """Whether this is the process of rank 0, or the only one."""
    dist = sys.modules.get("torch.distributed")  # whoever has not imported it has one process
    return dist is None or not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0


def _bar(what: str, unit: str, stack: ExitStack) -> Report | None:
    """A bar that the stack ends; None where standard error is neither a terminal nor a notebook's."""
    from rich.console import Console  # takes a tenth of a second, and most of what has a bar is over before it shows
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return None
    counts = (MofNCompleteColumn(), TextColumn(unit)) if unit else (MofNCompleteColumn(),)
    columns = (TextColumn(what), BarColumn(bar_width=24), *counts, TimeRemainingColumn(compact=True))
    bar = stack.enter_context(Progress(*columns, console=console))
    task = bar.add_task(what, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total or None)


def _line_reporter(what: str, unit: str, begin: float) -> Report:
    last = begin

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if total and (now - last >= LINE_EVERY_S or done == total):
            last = now
            print(f"{what}: {done} of {total} {unit}".rstrip(), file=sys.stderr, flush=True)

    return report
