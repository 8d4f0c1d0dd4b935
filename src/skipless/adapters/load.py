"""load_sine: a saved sine adapter into a model, or a word about why not."""

import json
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from skipless.adapters.config import SINE_LORA
from skipless.errors import InputError


def load_sine(
    model: nn.Module, path: str | PathLike[str], adapter: str = "default", *, trainable: bool = False, **kwargs: Any
) -> PeftModel:
    """Load a sine adapter that `save_pretrained` saved, quantised or not.

    PEFT's own `PeftModel.from_pretrained` and `load_adapter` load it, too, once `skipless.adapters` is imported. This
    refuses besides what is not a sine adapter, and a file that lacks weights, of which PEFT only warns.

    Args:
        model: the base, or a `PeftModel` that gets one more adapter.
        path: a folder, or a repository on the Hub.
        adapter: the name that it gets.
        trainable: whether it is trained on.
        kwargs: PEFT's, such as `revision`, `subfolder`, `low_cpu_mem_usage`.

    Returns:
        The model with the adapter. A base is wrapped, and the adapter is active; a `PeftModel` keeps its active one.

    Raises:
        InputError: if the folder has an adapter of another kind, or lacks weights; if the model has an adapter of that
            name.

    Example:
        >>> import tempfile
        >>> from peft import LoraConfig, get_peft_model
        >>> from skipless.adapters import sine_
        >>> config = LoraConfig(r=2, target_modules=["0"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sine_(get_peft_model(nn.Sequential(nn.Linear(4, 4)), config)).save_pretrained(folder)
        ...     loaded = load_sine(nn.Sequential(nn.Linear(4, 4)), folder)
        >>> loaded.peft_config["default"].sine_frequency
        200.0
    """
    _check_kind(path, kwargs.get("subfolder"))
    if isinstance(model, PeftModel):
        if adapter in model.peft_config:
            raise InputError(f"the model has an adapter {adapter!r}: give another name, or delete_adapter first")
        missing = model.load_adapter(str(path), adapter, is_trainable=trainable, **kwargs).missing_keys
        if missing:
            model.delete_adapter(adapter)
            raise InputError(f"{path} lacks weights of the adapter: {', '.join(missing[:3])}")
        return model
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, str(path), adapter, is_trainable=trainable, **kwargs)
        except UserWarning as error:
            raise InputError(f"{path} lacks weights of the adapter: {error}") from error


def _check_kind(path: str | PathLike[str], subfolder: str | None) -> None:
    """Refuse a folder with another adapter; what is on the Hub PEFT reads."""
    file = Path(path, subfolder or "", "adapter_config.json")
    if not Path(path).is_dir():
        return
    if not file.is_file():
        raise InputError(f"{file.parent} has no adapter_config.json: give the folder that save_pretrained wrote")
    kind = json.loads(file.read_text(encoding="utf-8")).get("peft_type")
    if kind != SINE_LORA:
        raise InputError(
            f"{file.parent} has an adapter of type {kind}, without a sine: load it by PeftModel.from_pretrained"
        )
