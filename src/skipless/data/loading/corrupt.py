"""CorruptLog: counts and names the unreadable images of a run, and stops the run if there are too many."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from skipless.errors import InputError

_MAX_LISTED = 5  # names in an error message


class Unreadable(NamedTuple):
    """An image that could not be decoded.

    Attributes:
        name: path of the image; in a shard, the shard's path and the member's name.
        reason: message of the decoder.
    """

    name: str
    reason: str


@dataclass(eq=False)
class CorruptLog:
    """The unreadable images of a run, each listed once.

    Attributes:
        limit: number of training images that may be unreadable.
        samples: number of training images.
        file: list of these images, a line of name and reason for each. The processes of a run share it, and a resumed
            run continues it. None keeps the list in memory.
        notify: called with a line for the user about each image.
        names: names of all unreadable images so far.
    """

    limit: int
    samples: int
    file: Path | None = None
    notify: Callable[[str], None] | None = None
    names: set[str] = field(default_factory=set)

    def add(self, found: Iterable[Unreadable]) -> None:
        """Add the unreadable images of a batch.

        Raises:
            InputError: if there are now more than the limit, or the file cannot be written.
        """
        met = dict(found)
        if not met:
            return
        if self.file is not None:
            self.names |= read_corrupt(self.file).keys()  # other processes write to the file, too
        for name, reason in met.items():
            if (line := name.translate(_ESCAPES)) in self.names:
                continue
            self.names.add(line)
            if self.file is not None:
                _append(self.file, f"{line}\t{reason.translate(_ESCAPES)}\n")
            if self.notify is not None:
                self.notify(
                    f"unreadable image {name!r} ({reason}), replaced by another; {len(self.names)} so far, "
                    f"{self.limit} allowed"
                )
        if len(self.names) > self.limit:
            where = f" (all in {str(self.file)!r})" if self.file is not None else ""
            raise InputError(
                f"{len(self.names)} of {self.samples} training images are unreadable, more than the {self.limit} that "
                f"corrupt_limit allows: {quote_names(sorted(self.names))}{where}; repair or remove them "
                "(and their lines), or raise the limit (--corrupt-limit)"
            )


def read_corrupt(file: Path) -> dict[str, str]:
    """Read a run's list of unreadable images, as a map from name to reason; empty if there is no list.

    Example:
        >>> read_corrupt(Path("no/such/corrupt.txt"))
        {}
    """
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"cannot read {str(file)!r} ({error}); see to it, then go on") from error
    lines = text.split("\n")[:-1]  # a line without a newline was not completed before a kill
    return {name: reason for name, tab, reason in (line.partition("\t") for line in lines) if tab}


_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _append(file: Path, line: str) -> None:
    try:
        with file.open("a+b") as out:
            if out.tell() and (out.seek(-1, 2), out.read())[1] != b"\n":
                line = "\n" + line
            out.write(line.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise InputError(f"cannot write {str(file)!r} ({error}); make room there, then go on") from error


def quote_names(names: Iterable[str]) -> str:
    """Quote the first few names and count the others."""
    texts = [repr(name) for name in names]
    more = len(texts) - _MAX_LISTED
    return ", ".join(texts[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
