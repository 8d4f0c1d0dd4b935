"""Finding the files of a layout by names and lists, by one rule for what an image is."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from skipless.data.dense.reading import read_list
from skipless.data.folder import EXTENSIONS, is_image, without_extension
from skipless.errors import InputError


class FileFinder:
    """Finds files in a folder by their names, with or without extension; each subfolder is listed once.

    Attributes:
        folder: the folder.
        extensions: extensions that count; the first is the layout's own.
    """

    def __init__(self, folder: Path, extensions: tuple[str, ...] = EXTENSIONS):
        self.folder, self.extensions = folder, extensions
        self._listings: dict[str, dict[str, list[str]]] = {}

    def file_of(self, name: str) -> Path:
        """Return the file of a name; if there is none, the path where it should lie."""
        return self._existing(name) or self.folder / f"{name}{self.extensions[0]}"

    def named_by(self, line: str) -> tuple[str, Path]:
        """Return the name, without extension, and the file that a line of a list means.

        A line is a name, a file name, or a path that may begin above the folder. Some lists have more words in a line,
        such as the path of the mask; the first word then is the name.
        """
        first = self._below(line.split(maxsplit=1)[0])
        for name in dict.fromkeys((self._below(line), first)):
            for tried in dict.fromkeys((name, without_extension(name))):
                if (file := self._existing(tried)) is not None:
                    return without_extension(file.relative_to(self.folder).as_posix()), file
        return without_extension(first), self.file_of(without_extension(first))

    def _existing(self, name: str) -> Path | None:
        below, _, last = name.rpartition("/")
        of_stem = self._files_in(below)
        if last in of_stem.get(without_extension(last, self.extensions), ()):
            return self.folder / name
        found = of_stem.get(last, [])
        own = f"{last}{self.extensions[0]}"
        if len(found) > 1 and own not in found:
            raise InputError(
                f"{name!r} may be {found[0]!r} or {found[1]!r} in {str(self.folder / below)!r}; remove or rename one"
            )
        return self.folder / below / (own if own in found else found[0]) if found else None

    def _below(self, word: str) -> str:
        """Return a path as from this folder; one that leads elsewhere is reduced to its last part."""
        parts = [part for part in word.split("/") if part not in ("", ".")]
        if self.folder.name in parts[:-1]:
            parts = parts[len(parts) - parts[::-1].index(self.folder.name) :]
        known = ".." not in parts and os.path.isdir(self.folder.joinpath(*parts[:-1]))
        return "/".join(parts if known else parts[-1:])

    def _files_in(self, below: str) -> dict[str, list[str]]:
        if below not in self._listings:
            listing = defaultdict(list)
            for name in image_names(self.folder / below, self.extensions):
                listing[without_extension(name, self.extensions)].append(name)
            self._listings[below] = listing
        return self._listings[below]


def image_names(folder: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """Return the sorted names of the images in a folder; none if it does not exist.

    Raises:
        InputError: if the folder cannot be listed.
    """
    try:
        return sorted(name for name in os.listdir(folder) if is_image(name, extensions))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"cannot list {str(folder)!r} ({error}); see to its permissions or its disk") from error


def one_image_a_mask(folder: Path) -> dict[str, Path]:
    """Return the images in a folder by their names without extension, which their masks have, too.

    Raises:
        InputError: if two images have one name, and thus one mask.
    """
    files: dict[str, Path] = {}
    for name in image_names(folder):
        stem = without_extension(name)
        if stem in files:
            raise InputError(
                f"{files[stem].name!r} and {name!r} in {str(folder)!r} would have the same mask; remove one of them"
            )
        files[stem] = folder / name
    return files


def listed_files(file: Path, folder: Path, remedy: str) -> list[tuple[str, Path]]:
    """Return the names and files of the images that a list names, in its order.

    Raises:
        InputError: if the list cannot be read, is empty or names an image twice; the message ends with `remedy`.
    """
    finder = FileFinder(folder)
    found = [finder.named_by(line) for line in read_list(file, remedy)]
    refuse_repeated((name for name, _ in found), file)
    return found


def refuse_repeated(names: Iterable[object], file: Path) -> None:
    """Refuse a list that names an image twice, which would count twice.

    Raises:
        InputError: if a name is there twice.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"the list {str(file)!r} names image {repeated[0]!r} twice; remove a line")


def unique_ids(files: Sequence[str]) -> list[str]:
    """Return an id for each of some files: its stem, or the whole name where several files have the same stem.

    Example:
        >>> unique_ids(["a/x.jpg", "b/x.jpg", "b/y.jpg"])
        ['a/x.jpg', 'b/x.jpg', 'y']
    """
    stems = [Path(file).stem for file in files]
    counts = Counter(stems)
    ids = [stem if counts[stem] == 1 else file for stem, file in zip(stems, files, strict=True)]
    return ids if len(set(ids)) == len(ids) else list(files)
