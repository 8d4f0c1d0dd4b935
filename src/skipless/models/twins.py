"""The skipless twins in timm's registry: there whenever timm and skipless both are, in whichever order they come.

`import skipless` imports neither torch nor timm. If timm is there already, the twins are registered at once; if not,
as soon as it has been imported.
"""

import importlib
import sys
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_LIBRARY = "timm"
_TWINS = "skipless.models.surgery"  # registers them as it is imported


def register_with_timm() -> None:
    """Register the twins, now or once timm is imported."""
    if _LIBRARY in sys.modules:
        importlib.import_module(_TWINS)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Finds nothing itself: it sees timm's import coming, steps aside, and has the twins registered after it."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _LIBRARY:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """Another loader, and the registration after it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader  # as if nobody had been here
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        importlib.import_module(_TWINS)
