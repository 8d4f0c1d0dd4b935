"""check_shards: whether a folder of Hugging Face's has the files of weights that it says it has, each of them whole."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from skipless.errors import InputError

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED_INDEX = "pytorch_model.bin.index.json"


def check_shards(folder: Path) -> None:
    """Refuse a folder that lacks its weights, or some of them. Of each file its header is read, not its tensors.

    Raises:
        InputError: if there are none; if an index is no index, names a file that is not there or not beside it, or a
            tensor that its file does not have; if a file is corrupt or cut off.
    """
    if (folder / _WHOLE).is_file():
        _names(folder / _WHOLE)
    elif (folder / _INDEX).is_file():
        placed = _placed(folder / _INDEX)
        held = {shard: _names(folder / shard) for shard in sorted(set(placed.values()))}
        for tensor, shard in placed.items():
            if tensor not in held[shard]:
                raise InputError(f"{_INDEX} in {folder} says that {tensor} is in {shard}, which does not have it")
    elif (folder / _PICKLED_INDEX).is_file():
        _placed(folder / _PICKLED_INDEX)
    elif not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise InputError(f"{folder} has no weights ({_WHOLE})")


def _placed(index: Path) -> dict[str, str]:
    """In which file an index says that each tensor is; all of them are there."""
    try:
        held: Any = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{index} is no JSON: {' '.join(str(error).split())}; copy it again") from error
    placed = held.get("weight_map") if isinstance(held, dict) else None
    if not isinstance(placed, dict) or not placed or not all(isinstance(shard, str) for shard in placed.values()):
        raise InputError(f"{index} has no weight_map, which says in which file each tensor is; copy it again")
    shards = sorted(set(placed.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise InputError(f"{index} names the shard {shard!r}, which is no file beside it")
        if not (index.parent / shard).is_file():
            raise InputError(f"{index.parent} lacks the shard {shard}, one of {len(shards)} that {index.name} names")
    return placed


def _names(file: Path) -> set[str]:
    """The tensors of a file."""
    try:
        with safe_open(file, framework="pt") as opened:
            return set(opened.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is corrupt or cut off ({' '.join(str(error).split())}): copy it again") from error
