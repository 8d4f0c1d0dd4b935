"""Frozen dataclasses as JSON and back, and changed by dotted names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from skipless.frozen import added, changed, from_json, to_json


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    new: str = added("as before")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    more: Mapping[str, object] = field(default_factory=dict)


def through_json(value: Outer) -> Outer:
    return from_json(Outer, json.loads(json.dumps(to_json(value))))


@pytest.mark.parametrize(
    "value",
    [
        Outer("a"),
        Outer("a", Inner(0.5, (3,), "otherwise"), Inner(), {"depth": 12, "nested": {"x": 1.5}}),
        Outer("a", maybe=None, more={"flag": True}),
    ],
)
def test_json_both_ways(value) -> None:
    assert through_json(value) == value


def test_a_field_that_was_added_is_silent_until_it_is_used() -> None:
    """What a version before it has written equals what is written now."""
    assert to_json(Inner()) == {"rate": 0.1, "sizes": (1, 2)}
    assert from_json(Inner, {"rate": 0.1, "sizes": [1, 2]}) == Inner()
    assert to_json(Inner(new="otherwise"))["new"] == "otherwise"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'rat'"):
        from_json(Outer, {"name": "a", "inner": {"rat": 1.0}})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        from_json(Outer, {})


def test_changes_by_dotted_name() -> None:
    value = Outer("a", maybe=Inner())
    new = changed(value, {"inner__rate": 0.5, "inner__sizes": (7,), "maybe__rate": 0.2, "name": None})
    assert (new.name, new.inner, new.maybe) == ("a", Inner(0.5, (7,)), Inner(0.2))
    assert changed(value, {"inner": Inner(0.3), "inner__sizes": (9,)}).inner == Inner(0.3, (9,))
    assert value == Outer("a", maybe=Inner())
    with pytest.raises(AttributeError):
        changed(value, {"nothing__rate": 1.0})
    with pytest.raises(TypeError):
        changed(value, {"inner__nothing": 1.0})


def test_parts_that_depend_on_each_other_change_at_once() -> None:
    @dataclass(frozen=True)
    class Pair:
        low: int = 0
        high: int = 1

        def __post_init__(self) -> None:
            if self.low >= self.high:
                raise ValueError

    assert changed(Pair(), {"low": 5, "high": 6}) == Pair(5, 6)
