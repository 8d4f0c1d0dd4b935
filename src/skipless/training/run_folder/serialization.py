"""Serialisation of nested Python state as JSON and named tensors, in place of pickle."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

TENSOR, TUPLE, MAPPING = "@tensor", "@tuple", "@mapping"


def split_tensors(tree: Any, name: str = "") -> tuple[Any, dict[str, Tensor]]:
    """Split a nested state into JSON and tensors.

    Args:
        tree: any nesting of mappings, lists, tuples, tensors, numbers, strings, booleans and None.
        name: name of the root. A tensor's name is its path from the root, joined by `/`.

    Returns:
        The state with its tensors replaced by their names, and the tensors by name.

    Raises:
        TypeError: for any other type, since it would be lost silently.

    Example:
        >>> import torch
        >>> split_tensors({"step": 3, "betas": (0.9, 0.95), "state": {0: torch.ones(1)}})
        ({'step': 3, 'betas': {'@tuple': [0.9, 0.95]}, 'state': {'@mapping': [[0, {'@tensor': 'state/0'}]]}}, \
{'state/0': tensor([1.])})
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any, path: str) -> Any:
        match value:
            case Tensor():
                tensors[path] = value.detach()
                return {TENSOR: path}
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [plain(item, _join(path, i)) for i, item in enumerate(value)]
            case tuple():
                return {TUPLE: [plain(item, _join(path, i)) for i, item in enumerate(value)]}
            case Mapping() if all(isinstance(key, str) and not key.startswith("@") for key in value):
                return {key: plain(item, _join(path, key)) for key, item in value.items()}
            case Mapping() if all(isinstance(key, int | str) for key in value):
                return {MAPPING: [[key, plain(item, _join(path, key))] for key, item in value.items()]}
        raise TypeError(f"{path or 'the state'} holds a {type(value).__name__}, which a checkpoint cannot store")

    return plain(tree, name), tensors


def join_tensors(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `split_tensors`.

    Example:
        >>> state = {"betas": (0.9, 0.95), "state": {0: [None, True]}}
        >>> join_tensors(*split_tensors(state)) == state
        True
    """
    match tree:
        case list():
            return [join_tensors(item, tensors) for item in tree]
        case {"@tensor": str(path), **rest} if not rest:
            return tensors[path]
        case {"@tuple": list(items), **rest} if not rest:
            return tuple(join_tensors(item, tensors) for item in items)
        case {"@mapping": list(items), **rest} if not rest:
            return {key: join_tensors(item, tensors) for key, item in items}
        case dict():
            return {key: join_tensors(item, tensors) for key, item in tree.items()}
    return tree


def _join(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)
