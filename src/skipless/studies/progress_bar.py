"""Progress of a study on standard error: a bar on a terminal, otherwise a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from skipless.studies.study_folder import rank_and_world_size

LINE_EVERY_S = 10.0


@contextmanager
def progress_bar(what: str, *, show: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yield a function `report(done, total)` that updates the display."""
    if not show or rank_and_world_size()[0] > 0:
        yield lambda done, total: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_reporter(what)
        return
    columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def tell_kept(what: str, kept: int, total: int, *, show: bool = True) -> None:
    """Say on standard error how much of a study's work was found done, if any was."""
    if kept and show and rank_and_world_size()[0] == 0:
        print(f"{what}: {kept} of {total} from before", file=sys.stderr, flush=True)


def _line_reporter(what: str) -> Callable[[int, int], None]:
    last = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= LINE_EVERY_S or done == total:
            last = now
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

    return report
