"""Fingerprint: what a run was asked for, to be compared when it is resumed."""

import json
from collections.abc import Mapping
from typing import Any

from skipless.errors import InputError
from skipless.frozen import to_json
from skipless.training.config import CHANGEABLE, FitConfig

_MAX_LISTED = 5  # differences in an error message
_LONGEST = 80  # characters of a value that are listed


def fingerprint(recipe: Mapping[str, Any], config: FitConfig, samples: int) -> dict[str, Any]:
    """Return the settings that a run and its checkpoint must share, after a round trip through JSON."""
    return json.loads(
        json.dumps(
            {"recipe": _without_changeable(recipe), "fit": _without_changeable(to_json(config)), "samples": samples}
        )
    )


def check_fingerprint(before: Mapping[str, Any], now: Mapping[str, Any], source: str) -> None:
    """Check that two fingerprints agree.

    Raises:
        InputError: if they differ; it lists the differences.
    """
    changes = [text for text in differences(before, now) if f"recipe.{text}" not in differences(before, now)]
    if changes:
        listed = "; ".join(changes[:_MAX_LISTED]) + (
            f"; {len(changes) - _MAX_LISTED} more" if len(changes) > _MAX_LISTED else ""
        )
        raise InputError(
            f"{source!r} was made by another recipe ({listed}); give another --out, or the recipe of before"
        )


def check_run_record(record: Mapping[str, Any], expected: Mapping[str, Any], source: str) -> None:
    """Check that the contents of a `run.json` agree with a fingerprint; raises as `check_fingerprint`.

    Raises:
        InputError: also if it lacks what it must hold.
    """
    for key, kind in (("recipe", dict), ("fit", dict), ("samples", int)):
        if not isinstance(record.get(key), kind) or (expected[key] and record[key] == {}):
            raise InputError(
                f"run.json in {source!r} is damaged: {key!r} is {_shortened(record.get(key))}; put back a whole "
                "one, or give another --out"
            )
    check_fingerprint({key: _without_changeable(record[key]) for key in ("recipe", "fit", "samples")}, expected, source)


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """List the differences between two JSON trees, in words.

    Example:
        >>> differences({"lr": 0.003, "model": {"depth": 12}}, {"lr": 0.001, "model": {"depth": 12}})
        ['lr was 0.003, now 0.001']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [
            text for key in keys for text in differences(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if before == now else [f"{path} was {_shortened(before)}, now {_shortened(now)}"]


def _shortened(value: Any) -> str:
    """A value as JSON; only the beginning of a long one."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _without_changeable(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _without_changeable(value) for key, value in tree.items() if key not in CHANGEABLE}
    return tree
