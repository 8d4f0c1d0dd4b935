"""COCO's `instances_*.json`: the objects of every image, and which images a list means."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from skipless.data.dense.finding import refuse_repeated
from skipless.data.dense.reading import read_list, whole_box
from skipless.data.dense.records import ObjectBoxes
from skipless.data.folder import without_extension
from skipless.errors import InputError


class Instances:
    """The contents of an `instances_*.json`.

    Attributes:
        file: the JSON file.
        names: file name of every image, by its id.
        objects: objects of every image, by its id, without crowds; a text says why those of an image cannot be used.
    """

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self.file = file
        try:
            self.names = self._names(content["images"])
            self.objects = self._objects(content)
            self._ordered = sorted(self.names)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{str(file)!r} is no COCO instances file ({type(error).__name__}: {error}); fetch it again"
            ) from error

    def chosen(self, listing: Path | None) -> list[int]:
        """Return the ids of the images in a list, in its order, or all ids in ascending order.

        Raises:
            InputError: if a line means no image or several, or the list names an image twice.
        """
        if listing is None:
            return self._ordered
        meant = _NamesInLists(self.names)
        numbers = [self._number(line, meant, listing) for line in read_list(listing, "give one file name or id a line")]
        refuse_repeated(numbers, listing)
        return numbers

    def _names(self, images: list[dict[str, Any]]) -> dict[int, str]:
        pairs = dict.fromkeys((image["id"], str(image["file_name"])) for image in images)
        numbers: dict[str, int] = {}
        names: dict[int, str] = {}
        for number, name in pairs:
            if names.setdefault(number, name) != name:
                what = f"two images {number!r}, {names[number]!r} and {name!r}"
                raise InputError(f"{str(self.file)!r} lists {what}; give each image an id of its own")
            if numbers.setdefault(name, number) != number:
                what = f"{name!r} twice, as images {numbers[name]!r} and {number!r}"
                raise InputError(f"{str(self.file)!r} lists {what}; give each image once")
        return names

    def _objects(self, content: dict[str, Any]) -> dict[int, ObjectBoxes | str]:
        classes = {category["id"]: str(category["name"]) for category in content["categories"]}
        gathered: dict[int, list[tuple[list[int], str]]] = defaultdict(list)
        problems: dict[int, str] = {}
        for entry in content["annotations"]:
            number = entry["image_id"]
            if entry["iscrowd"]:
                continue
            if number not in self.names:
                raise InputError(
                    f"{str(self.file)!r} annotates image {number!r}, which it does not list; fetch it again"
                )
            name = classes[entry["category_id"]]
            try:
                gathered[number].append((_box(entry["bbox"]), name))
            except (TypeError, ValueError, OverflowError) as error:
                problems.setdefault(number, f"bbox {str(entry['bbox'])[:80]} of a {name}: {error}")
        return {number: _as_boxes(gathered[number]) for number in self.names} | problems

    def _number(self, line: str, meant: "_NamesInLists", listing: Path) -> int:
        for word in dict.fromkeys((line, line.split(maxsplit=1)[0])):
            found = meant.ids(word)
            if len(found) > 1:
                raise InputError(
                    f"{word!r} in {str(listing)!r} may mean the images {sorted(found)} of {str(self.file)!r}; give "
                    "file names with their folders and extensions"
                )
            if found:
                return next(iter(found))
        number = _trailing_number(line.split(maxsplit=1)[0])
        if number is None:
            raise InputError(f"{str(listing)!r} names no COCO image: {line!r}; give one file name or id a line")
        if number not in self.names or _trailing_number(self.names[number]) != number:
            raise InputError(
                f"{str(listing)!r} names image {number}, which {str(self.file)!r} does not have; the list belongs "
                "to other images"
            )
        return number


class _NamesInLists:
    """What a word of a list may mean: an id, or a file name with more or fewer folders, with its extension or without.

    Names with their extensions go first.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        whole = {number: "/".join(_parts(name)) for number, name in names.items()}
        self._forms = (_Forms(whole), _Forms({number: without_extension(name) for number, name in whole.items()}))

    def ids(self, word: str) -> set[int]:
        """Return the ids of the images that a word may mean."""
        found = next((ids for form in self._forms if (ids := form.ids(word))), set())
        number = int(word) if word.isascii() and word.isdigit() else None
        return found | ({number} & self._names.keys() if number is not None else set())


class _Forms:
    def __init__(self, names: Mapping[int, str]) -> None:
        self._whole: dict[str, set[int]] = defaultdict(set)
        self._ends: dict[str, set[int]] = defaultdict(set)
        for number, name in names.items():
            self._whole[name].add(number)
            for end in _ends(name):
                self._ends[end].add(number)

    def ids(self, word: str) -> set[int]:
        ends = _ends(word) or [word]
        longer = self._whole.get(ends[0]) or self._ends.get(ends[0])
        return longer or next((self._whole[end] for end in ends[1:] if end in self._whole), set())


def _ends(name: str) -> list[str]:
    """Return a path without its first 0, 1, ... folders."""
    parts = _parts(name)
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _trailing_number(name: str) -> int | None:
    digits = PurePosixPath(name).stem.rsplit("_", 1)[-1]
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _box(bbox: Any) -> list[int]:
    x, y, width, height = bbox
    if width < 0 or height < 0:
        raise ValueError("its width or height is negative")
    return whole_box(x, y, x + width, y + height)


def _as_boxes(found: list[tuple[list[int], str]]) -> ObjectBoxes:
    none = np.zeros(len(found), dtype=bool)
    boxes = np.array([box for box, _ in found], dtype=np.int64).reshape(-1, 4)
    return ObjectBoxes(boxes, tuple(name for _, name in found), none, none)
