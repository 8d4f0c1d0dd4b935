"""What becomes of a run's tokens from block to block, before its training and after; kept beside the run."""

import json
from collections.abc import Mapping
from pathlib import Path

from skipless.models import inspect_tokens
from skipless.models.starting.first_tokens import Given
from skipless.recipes import open_model
from skipless.report.write_files import write_files

FILE = "tokens.json"


def token_history(folder: Path, given: Given) -> Mapping[str, list[float]]:
    """Token cosine and attention diagonal after every block, before and after training.

    Args:
        folder: of a run. What was found is kept there, in `tokens.json`.
        given: normalised images, or token ids.

    Returns:
        `cosine_untrained`, `diagonal_untrained`, and the same with `trained` where the run is finished.
    """
    kept = folder / FILE
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    found: dict[str, list[float]] = {}
    for state in ("untrained", "trained"):
        if state == "trained" and not (folder / "result.json").is_file():
            continue
        report = inspect_tokens(open_model(str(folder), untrained=state == "untrained").model, given)
        found[f"cosine_{state}"] = [block.cosine for block in report.blocks]
        found[f"diagonal_{state}"] = [block.diagonal for block in report.blocks]
    write_files(folder, {FILE: found})
    return found
