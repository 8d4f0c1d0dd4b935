"""Listing a tar's members from their headers.

Python's tarfile takes 100 microseconds for a member, which is minutes for ImageNet's millions; this takes a quarter. It
supports what tar, tarfile and webdataset write: POSIX headers with pax records, and GNU's long names.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from skipless.errors import InputError

_BLOCK = 512
_WINDOW = 4096  # bytes: holds the headers of a member, and often those of small members after it
_COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"\x28\xb5\x2f\xfd": "zstd -d"}
_FILE, _PAX, _GNU_NAME = (b"0", b"\0", b"7"), b"x", b"L"
_UNSUPPORTED = {b"S": "a sparse file", b"g": "a global pax header"}


class Member(NamedTuple):
    """A file within a tar.

    Attributes:
        name: path within the tar.
        offset: offset of the first byte in the tar.
        size: size in bytes.
    """

    name: str
    offset: int
    size: int


def tar_members(file: Path) -> Iterator[Member]:
    """Yield the files of a plain tar in order.

    Raises:
        InputError: if the file is compressed, truncated, damaged or not a tar; the message says which.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot read the shard {str(file)!r} ({error}); see that it is there") from error
    try:
        yield from _members(_Blocks(descriptor, file))
    except OSError as error:
        raise InputError(f"cannot read the shard {str(file)!r} ({error}); see to its disk") from error
    finally:
        os.close(descriptor)


class _Blocks:
    """Reads a file in windows; most headers are then in the window of the previous one."""

    def __init__(self, descriptor: int, file: Path) -> None:
        self.descriptor, self.file = descriptor, file
        self.size = os.fstat(descriptor).st_size
        self.start, self.window = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        if offset + size > self.size:
            raise self.cut_off(f"it ends at byte {self.size}, and more was to come")
        if not self.start <= offset <= offset + size <= self.start + len(self.window):
            self.start, self.window = offset, os.pread(self.descriptor, max(size, _WINDOW), offset)
        return self.window[offset - self.start : offset - self.start + size]

    def cut_off(self, how: str) -> InputError:
        return InputError(f"the shard {str(self.file)!r} is cut off: {how}; fetch or write it again")


def _members(blocks: _Blocks) -> Iterator[Member]:
    _refuse_compressed(blocks)
    at, extended = 0, {}
    while (header := blocks.read(at, _BLOCK)) != bytes(_BLOCK):
        kind, size = _parsed(header, blocks.file, at)
        size = int(extended.get("size", size)) if kind in _FILE else size
        data, at = at + _BLOCK, at + _BLOCK + -(-size // _BLOCK) * _BLOCK
        if data + size > blocks.size:
            name = extended.get("path") or _name(header)
            raise blocks.cut_off(f"{name!r} needs {size} bytes and has {max(blocks.size - data, 0)}")
        if kind == _PAX:
            extended |= _pax_records(blocks.read(data, size), blocks.file, data - _BLOCK)
        elif kind == _GNU_NAME:
            extended["path"] = os.fsdecode(blocks.read(data, size).rstrip(b"\0"))
        else:
            if kind in _FILE:
                yield Member(extended.get("path") or _name(header), data, size)
            extended = {}


def _refuse_compressed(blocks: _Blocks) -> None:
    first = blocks.read(0, min(blocks.size, _BLOCK))
    for magic, command in _COMPRESSED.items():
        if first.startswith(magic):
            raise InputError(
                f"the shard {str(blocks.file)!r} is compressed, and images are read from any place of a shard: "
                f"unpack it once (`{command}`), its images are compressed already"
            )


def _parsed(header: bytes, file: Path, at: int) -> tuple[bytes, int]:
    """Verify a header's checksum, and return the member's type and size."""
    kind, raw = header[156:157], header[124:136]
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    size = int.from_bytes(raw[1:], "big") if raw[0] & 0x80 else _octal(raw)
    if total != _octal(header[148:156]) or size is None:
        what = "no tar" if at == 0 else f"damaged at byte {at}"
        raise InputError(f"the shard {str(file)!r} is {what}; fetch or write it again")
    if kind in _UNSUPPORTED:
        raise InputError(f"the shard {str(file)!r} has {_UNSUPPORTED[kind]} at byte {at}; write it with webdataset")
    return kind, size


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0") or b"0"
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return os.fsdecode(prefix + b"/" + name if prefix else name)


def _pax_records(content: bytes, file: Path, at: int) -> dict[str, str]:
    """Parse records of the form `LENGTH KEY=VALUE\\n`, which have no checksum."""
    records = {}
    while content.strip(b"\0"):
        digits, _, rest = content.partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = rest[: length - len(digits) - 1].partition(b"=")
        if (
            length > len(content)
            or not (equals and value.endswith(b"\n"))
            or (key == b"size" and not value[:-1].isdigit())
        ):
            raise InputError(f"the shard {str(file)!r} is damaged at byte {at}; fetch or write it again")
        records[os.fsdecode(key)] = os.fsdecode(value[:-1])
        content = content[length:]
    return {key: records[key] for key in ("path", "size") if key in records}
