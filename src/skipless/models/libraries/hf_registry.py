"""Hooks in Hugging Face transformers, so that no skipless model is saved, loaded or built as a residual one.

They are set as soon as both libraries have been imported, in whichever order, and do nothing to a model or a
configuration that is not skipless:

- `PreTrainedModel.post_init`, the end of a model's construction, removes the skips that its configuration says are not
  there;
- `PreTrainedModel.save_pretrained` first has the configuration say what the blocks are like;
- `PreTrainedModel.from_pretrained` refuses a configuration that contradicts the folder's;
- `PreTrainedConfig.to_json_file` writes `"model_type": "skipless_llama"`, which `transformers` alone does not know, and
  `PreTrainedConfig.get_config_dict` reads it as `llama`.
"""

import importlib
import json
from functools import wraps
from pathlib import Path
from typing import Any

from skipless.models.libraries.after_import import after_import

_SAVED = "skipless.models.adapters.hf.saved"
_FIELD, _PREFIX = "skipless", "skipless_"


def register_with_transformers() -> None:
    """Set the hooks, now or once transformers has been imported."""
    after_import("transformers.modeling_utils", _hook_models)
    after_import("transformers.configuration_utils", _hook_configurations)


def _saved() -> Any:
    """The code that the hooks call; it imports torch, as transformers has."""
    return importlib.import_module(_SAVED)


def _hook_models(module: Any) -> None:
    cls = module.PreTrainedModel
    post_init, save, load = cls.post_init, cls.save_pretrained, cls.from_pretrained.__func__
    if hasattr(post_init, "skipless"):
        return

    @wraps(post_init)
    def build(self: Any) -> Any:
        result = post_init(self)
        if getattr(self.config, _FIELD, None) is not None:
            _saved().build_(self)
        return result

    @wraps(save)
    def check_and_save(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_skipless(self):
            _saved().check_saved(self)
        return save(self, *args, **kwargs)

    @wraps(load)
    def load_and_check(cls: Any, *args: Any, **kwargs: Any) -> Any:
        name = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        subfolder = kwargs.get("subfolder") or ""
        result = load(cls, *args, **kwargs)
        _saved().check_loaded(result[0] if isinstance(result, tuple) else result, name, subfolder)
        return result

    build.skipless = True  # pyright: ignore[reportAttributeAccessIssue]
    cls.post_init, cls.save_pretrained, cls.from_pretrained = build, check_and_save, classmethod(load_and_check)


def _is_skipless(model: Any) -> bool:
    """Whether a model has lost any skips, or its configuration says so."""
    ours = f"{_SAVED.rpartition('.')[0]}."
    return getattr(model.config, _FIELD, None) is not None or any(
        base.__module__.startswith(ours) for part in model.modules() for base in type(part).__mro__
    )


def _hook_configurations(module: Any) -> None:
    cls = module.PreTrainedConfig
    write, read = cls.to_json_file, cls.get_config_dict.__func__
    if hasattr(write, "skipless"):
        return

    @wraps(write)
    def write_own_type(self: Any, json_file_path: Any, *args: Any, **kwargs: Any) -> Any:
        result = write(self, json_file_path, *args, **kwargs)
        if getattr(self, _FIELD, None) is not None:
            file = Path(json_file_path)
            written = json.loads(file.read_text(encoding="utf-8"))
            written["model_type"] = f"{_PREFIX}{self.model_type}"
            file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return result

    @wraps(read)
    def read_own_type(cls: Any, *args: Any, **kwargs: Any) -> Any:
        found, rest = read(cls, *args, **kwargs)
        if found.get(_FIELD) is not None:
            found["model_type"] = str(found.get("model_type", "")).removeprefix(_PREFIX)
        return found, rest

    write_own_type.skipless = True  # pyright: ignore[reportAttributeAccessIssue]
    cls.to_json_file, cls.get_config_dict = write_own_type, classmethod(read_own_type)
