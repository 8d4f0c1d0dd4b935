"""Measurements kept in files, so that a command that was cut off goes on."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skipless.evaluators.features.store_builder import weights_hash
from skipless.models.vit_view import find_vit
from skipless.report.write_files import write_files
from skipless.training.run_folder.atomic import read_json


def cached(file: Path, asked: Any, make: Callable[[], Any]) -> Any:
    """What a file holds, so that a killed command goes on; made and written if it is not there, or of something else.

    Args:
        file: holds what was asked for and the value.
        asked: all that the value depends on, as JSON.
        make: gives the value, as JSON.
    """
    asked = json.loads(json.dumps(asked))
    held = read_json(file)
    if not isinstance(held, dict) or held.get("asked") != asked:
        held = {"asked": asked, "value": json.loads(json.dumps(make()))}
        write_files(file.parent, {file.name: held})
    else:
        print(f"{file}: measured before", file=sys.stderr, flush=True)
    return held["value"]


def seen(model: nn.Module, pixels: torch.Tensor) -> dict[str, str]:
    """What a measurement depends on: weights and images."""
    return {
        "weights": weights_hash(find_vit(model)),
        "images": hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest(),
    }
