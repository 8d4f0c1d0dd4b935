"""SplitWriter: the files of one split while it is being prepared."""

import hashlib
import os
from pathlib import Path
from typing import IO, Any

import numpy as np

from skipless.data.text.prepared import BYTE_COUNTS, DOCUMENTS, TOKENS

PAIRS = "pairs.bin"
_READ = 2**24  # ids at once
_PAIR = 2 * np.dtype(np.int64).itemsize


class SplitWriter:
    """The files of a split: ids, and a pair (tokens with the end, bytes) for each document."""

    def __init__(self, folder: Path, dtype: str, end: int) -> None:
        self.folder, self.dtype, self.end = folder, dtype, end
        self.tokens = self.documents = 0
        self._ids: IO[bytes] | None = None
        self._pairs: IO[bytes] | None = None

    def holds(self, tokens: int, documents: int) -> bool:
        """Whether the files are at least so long."""
        sizes = {TOKENS: tokens * np.dtype(self.dtype).itemsize, PAIRS: documents * _PAIR}
        files = {name: self.folder / name for name in sizes}
        return all(file.is_file() and file.stat().st_size >= sizes[name] for name, file in files.items())

    def open(self, tokens: int, documents: int) -> None:
        """Open the files behind what is written; the stream starts with an end of document."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ids = _truncated(self.folder / TOKENS, tokens * np.dtype(self.dtype).itemsize)
        self._pairs = _truncated(self.folder / PAIRS, documents * _PAIR)
        self.tokens, self.documents = tokens, documents
        if not tokens:
            self._ids.write(np.array([self.end], dtype=self.dtype).tobytes())
            self.tokens = 1

    def add(self, ids: np.ndarray, size: int) -> None:
        """Write a document."""
        assert self._ids is not None
        assert self._pairs is not None
        self._ids.write(np.append(ids, self.end).astype(self.dtype).tobytes())
        self._pairs.write(np.array([len(ids) + 1, size], dtype=np.int64).tobytes())
        self.tokens += len(ids) + 1
        self.documents += 1

    def sync(self) -> tuple[int, int]:
        """Put everything on the disk; return the numbers of tokens and documents."""
        for file in (self._ids, self._pairs):
            assert file is not None
            file.flush()
            os.fsync(file.fileno())
        return self.tokens, self.documents

    def close(self) -> None:
        """Close the files."""
        for file in (self._ids, self._pairs):
            if file is not None:
                file.close()

    def finish(self) -> dict[str, Any]:
        """Write the offsets, and return what is known of the split."""
        pairs = np.fromfile(self.folder / PAIRS, dtype=np.int64).reshape(-1, 2)
        starts = np.concatenate([[1], 1 + np.cumsum(pairs[:, 0])]).astype(np.int64)
        for name, array in ((DOCUMENTS, starts), (BYTE_COUNTS, np.ascontiguousarray(pairs[:, 1]))):
            with (self.folder / name).open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        digest, counts = hashlib.sha256(), np.zeros(0, dtype=np.int64)
        with (self.folder / TOKENS).open("rb") as file:
            while content := file.read(_READ * np.dtype(self.dtype).itemsize):
                digest.update(content)
                ids = np.frombuffer(content, dtype=self.dtype)
                more = np.bincount(ids, minlength=len(counts))
                more[: len(counts)] += counts
                counts = more
        counts[self.end] -= 1  # the first is predicted by nothing
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": int(pairs[:, 1].sum()),
            "unigram_entropy": entropy(counts),
            "sha256": digest.hexdigest(),
        }


def entropy(counts: np.ndarray) -> float:
    """The entropy of frequencies, in nats.

    Example:
        >>> round(entropy(np.array([1, 0, 1])), 4)  # ln 2
        0.6931
    """
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log(share)).sum())


def _truncated(file: Path, size: int) -> IO[bytes]:
    """Open a file for writing behind its first `size` bytes."""
    opened = file.open("r+b" if file.exists() else "w+b")
    opened.truncate(size)
    opened.seek(size)
    return opened
