"""Asynchronous checkpoints: a thread writes the file, so that training pays only for a copy in memory."""

import threading
from pathlib import Path

from skipless.training.run_folder.checkpoint import Snapshot, write_snapshot


class CheckpointWriter:
    """Writes snapshots as the folder's checkpoint, in one thread at a time.

    Leaving its context waits for the thread, even after an error. If the thread fails, on a full disk for example, the
    next call raises its error; the previous checkpoint is then still in place.

    Args:
        folder: the run folder.
        saved: step of the checkpoint that already exists, if any.

    Attributes:
        saved: step of the last checkpoint that is complete on the disk.
    """

    def __init__(self, folder: Path, saved: int | None = None) -> None:
        self.folder = folder
        self.saved = saved
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._thread is not None:
            self._thread.join()
        if error is None:
            self.wait()

    def start(self, snapshot: Snapshot, step: int) -> None:
        """Start to write a snapshot, once the previous one is written."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(snapshot, step), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            InputError: if the checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise the error of a thread that has ended with one; never wait."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            if self._error is not None:
                error, self._error = self._error, None
                raise error

    def _write(self, snapshot: Snapshot, step: int) -> None:
        try:
            write_snapshot(self.folder, snapshot)
        except BaseException as error:
            self._error = error
        else:
            self.saved = step
