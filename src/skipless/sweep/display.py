"""Progress of a sweep for the user: a live table on a terminal, lines elsewhere."""

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skipless.sweep.jobs import Call, Job, State

LINE_SECONDS = 20.0


class Display:
    """A live table on a terminal; elsewhere a line when a run ends, and lines of running ones now and then."""

    def __init__(self, jobs: Sequence[Job | Call], console: Console) -> None:
        self.jobs, self.console = jobs, console
        self.live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        self.printed: dict[int, State] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def show(self) -> None:
        """Show the state of every job."""
        if self.live:
            self.live.update(_table(self.jobs))
            return
        for job in self.jobs:
            if job.state not in ("waiting", "running") and self.printed.get(id(job)) != job.state:
                self.printed[id(job)] = job.state
                self._line(job)
        if time.monotonic() - self.last_line > LINE_SECONDS:
            for job in self.jobs:
                if job.state == "running":
                    self._line(job)

    def _line(self, job: Job | Call) -> None:
        self.last_line = time.monotonic()
        cells = (text for text in job.cells() if text)
        self.console.print(", ".join(job.labels) + ":", "  ".join(cells), markup=False, highlight=False, soft_wrap=True)


def _table(jobs: Iterable[Job | Call]) -> Table:
    table = Table("run", "", "epoch", "loss", "train", "score", "images/s", "time", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for job in jobs:
        bar = ProgressBar(total=1.0, completed=job.fraction_done, width=20)
        style = {"done": "bold", "failed": "red", "diverged": "yellow", "waiting": "dim"}.get(job.state, "")
        state = job.state if job.state in ("waiting", "failed", "diverged") else ""
        if isinstance(job, Job) and job.before and job.state == "done":
            state = job.ending
        table.add_row(Text(", ".join(job.labels), style=style), state or bar, *job.cells()[:6])
    return table
