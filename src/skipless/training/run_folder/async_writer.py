"""Checkpoints are written beside the training: a step that asks for one pays for a copy in memory, not for the disk."""

import threading
from pathlib import Path

from skipless.training.run_folder.checkpoint import Snapshot, write_snapshot


class CheckpointWriter:
    """One thread at a time that turns a snapshot into the folder's checkpoint.

    Leaving the block waits for it, whatever else goes wrong. An error in the thread (a full disk) is raised by the next
    call from here; the checkpoint before is then still in place.

    Args:
        folder: of the run.
        saved: the step of the checkpoint that is there already.

    Attributes:
        saved: the step of the last checkpoint that is complete on the disk.
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
        """Begin to write, once the one before is done."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(snapshot, step), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is left to be written.

        Raises:
            InputError: if it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise the thread's error, if it has come to one by now; never wait."""
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
