"""Documents of a file: plain text, JSON lines, Parquet, Arrow. Each knows its place, for messages."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from skipless.data.decoding import decode_text
from skipless.errors import InputError, did_you_mean
from skipless.optional import how_to_install

Form = Literal["text", "lines", "parquet", "arrow"]
Parts = Literal["file", "paragraph", "line"]

ENDINGS: dict[Form, tuple[str, ...]] = {
    "arrow": (".arrow",),
    "parquet": (".parquet",),
    "lines": (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"),
    "text": (".txt", ".text", ".md", ".txt.gz", ".text.gz"),
}
"""What files are called, by form; a folder gives those of the first form that is in it."""
_BLANK_LINES = re.compile(r"(\n(?:[ \t]*\n)+)")


class Document(NamedTuple):
    """A document.

    Attributes:
        text: all of it.
        place: file and line or row, for messages.
    """

    text: str
    place: str


def form_of(file: Path) -> Form | None:
    """The form that a file's name says; None for any other name.

    Example:
        >>> form_of(Path("c4-train.00000-of-01024.json.gz")), form_of(Path("photo.png"))
        ('lines', None)
    """
    name = file.name.lower()
    return next((form for form, endings in ENDINGS.items() if name.endswith(endings)), None)


def read_documents(file: Path, form: Form, *, field: str, parts: Parts) -> Iterator[Document]:
    """Yield the documents of a file, in order, empty ones too.

    Args:
        file: the file.
        form: what is in it.
        field: name of the field or column with the text.
        parts: what a document is in plain text.

    Raises:
        InputError: that names the file and the line or row of what cannot be read.
    """
    try:
        if form == "text":
            yield from _of_text(file, parts)
        elif form == "lines":
            yield from _of_lines(file, field)
        else:
            yield from _of_table(file, form, field)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{str(file)!r} cannot be read to its end ({error}); fetch it again") from error


def _open(file: Path) -> Any:
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")


def _of_text(file: Path, parts: Parts) -> Iterator[Document]:
    with _open(file) as opened:
        content = opened.read()
    try:
        text = decode_text(content)
    except UnicodeDecodeError as error:
        raise _not_text(f"{file}:{content[: error.start].count(10) + 1}", error) from error
    if parts == "file":
        yield Document(text, str(file))
        return
    line = 1
    for piece in _BLANK_LINES.split(text) if parts == "paragraph" else text.splitlines(keepends=True):
        if piece.strip():
            yield Document(piece.strip("\n"), f"{file}:{line}")
        line += piece.count("\n")


def _of_lines(file: Path, field: str) -> Iterator[Document]:
    with _open(file) as opened:
        for number, line in enumerate(opened, start=1):
            place = f"{file}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_text(place, error) from error
            if not text.strip():
                continue
            try:
                values = json.loads(text)
            except ValueError as error:
                raise InputError(f"{place} is no JSON ({error}); give one object a line, or repair it") from error
            yield Document(_text_in(values, field, place), place)


def _text_in(values: Any, field: str, place: str) -> str:
    if not isinstance(values, dict):
        raise InputError(
            f"{place} is JSON of a {type(values).__name__}, not an object; give one object a line (jq -c '.[]' makes "
            "that of a list)"
        )
    if field not in values:
        raise _no_field(place, field, list(values))
    return _checked(values[field], field, place)


def _of_table(file: Path, form: Form, field: str) -> Iterator[Document]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise InputError(f"{str(file)!r} is read by pyarrow: {how_to_install('pyarrow')}") from error
    row = 0
    try:
        for values in _parquet_column(file, field) if form == "parquet" else _arrow_column(file, field):
            for value in values.to_pylist():
                row += 1
                place = f"{file}, row {row}"
                yield Document(_checked(value, field, place), place)
    except pa.ArrowException as error:
        after = f" after row {row}" if row else ""
        raise InputError(f"{str(file)!r} cannot be read{after} ({error}); fetch it again") from error


def _parquet_column(file: Path, field: str) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        _check_column(file, field, opened.schema_arrow.names)
        for batch in opened.iter_batches(columns=[field]):
            yield batch.column(0)


def _arrow_column(file: Path, field: str) -> Iterator[Any]:
    """The batches of an Arrow stream, as `datasets` saves it, or of an Arrow file."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as mapped:
        try:
            opened: Any = pa.ipc.open_stream(mapped)
            batches: Iterator[Any] = iter(opened)
        except pa.ArrowInvalid:
            opened = pa.ipc.open_file(mapped)
            batches = (opened.get_batch(index) for index in range(opened.num_record_batches))
        _check_column(file, field, opened.schema.names)
        for batch in batches:
            yield batch.column(batch.schema.get_field_index(field))


def _check_column(file: Path, field: str, names: list[str]) -> None:
    if field not in names:
        raise _no_field(str(file), field, names)


def _checked(value: Any, field: str, place: str) -> str:
    """A text that UTF-8 can hold; nothing stands for an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place}: field {field!r} is a {type(value).__name__}, not text; name the text's by --field")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: field {field!r} is no text that UTF-8 can hold ({error}); repair it") from error
    return value


def _no_field(place: str, field: str, names: list[str]) -> InputError:
    near = did_you_mean(field, names)
    has = ", ".join(map(repr, names[:8])) or "none"
    return InputError(f"{place} has no field {field!r}; {near}it has {has}; name the text's by --field")


def _not_text(place: str, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start]
    return InputError(f"{place} is not UTF-8 (byte 0x{byte:02x}: {error.reason}); convert it: iconv -f latin1 -t utf-8")
