"""Registers the skipless models in timm's model registry, whichever of timm and skipless is imported first.

`import skipless` imports neither torch nor timm. If timm has been imported already, the models are registered at once.
If not, a post-import hook registers them as soon as timm has been imported.
"""

import importlib
import sys
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_LIBRARY = "timm"
_REGISTERING_MODULE = "skipless.models.surgery"  # importing it registers the models


def register_with_timm() -> None:
    """Register the skipless models with timm, now or once timm is imported."""
    if _LIBRARY in sys.modules:
        importlib.import_module(_REGISTERING_MODULE)
    elif not any(isinstance(finder, _PostImportFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PostImportFinder())


class _PostImportFinder(MetaPathFinder):
    """Waits for the import of timm, removes itself, and wraps timm's loader in a `_PostImportLoader`."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _LIBRARY:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _PostImportLoader(spec.loader)
        return spec


class _PostImportLoader(Loader):
    """Loads timm by its own loader, then registers the models."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader  # leave no trace of the wrapper
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        importlib.import_module(_REGISTERING_MODULE)
