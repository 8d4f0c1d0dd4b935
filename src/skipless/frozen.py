"""Frozen dataclasses: changed by dotted names, written as plain JSON, and read back."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_ADDED = "added"


def added(default: Any) -> Any:
    """A field that an earlier version did not have: JSON leaves it out where it holds its default.

    What that version wrote thus equals what is written now, and its runs can be resumed.
    """
    return field(default=default, metadata={_ADDED: True})


def changed(value: T, changes: Mapping[str, Any]) -> T:
    """A copy in which fields are changed by their dotted name, `optimizer__lr`; None changes nothing.

    All changes of a part are made at once, so that those that depend on each other may be made together.

    Raises:
        TypeError: for a field that does not exist.
    """
    whole: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, new in changes.items():
        if new is not None:
            name, _, rest = path.partition("__")
            if rest:
                inner.setdefault(name, {})[rest] = new
            else:
                whole[name] = new
    for name, within in inner.items():
        whole[name] = changed(whole.get(name, getattr(value, name)), within)
    return replace(value, **whole)  # pyright: ignore[reportArgumentType]


def to_json(value: Any) -> Any:
    """A dataclass, and all that it holds, as mappings, lists, tuples and plain values."""
    if is_dataclass(value):
        return {part.name: to_json(getattr(value, part.name)) for part in fields(value) if not _left_out(value, part)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_json(item) for item in value)
    return value


def from_json(cls: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass that `to_json` has written.

    Raises:
        TypeError: if a field is missing, or there is one that the dataclass does not have.
    """
    hints = get_type_hints(cls)
    return cls(**{name: _read(hints.get(name), value) for name, value in values.items()})


def _read(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next((kind for kind in get_args(hint) if is_dataclass(kind)), hint)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_json(hint, value)
    return tuple(value) if isinstance(value, list) else value  # JSON has lists for tuples


def _left_out(value: Any, part: Any) -> bool:
    return bool(part.metadata.get(_ADDED)) and part.default is not MISSING and getattr(value, part.name) == part.default
