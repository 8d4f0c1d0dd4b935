"""Something done as soon as a library's module has been imported, now or later. Imports nothing of ours."""

import sys
from collections.abc import Callable, Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from threading import local
from types import ModuleType
from typing import Any


def after_import(name: str, register: Callable[[Any], Any]) -> None:
    """Call `register` with a module, at once if it has been imported, else when it is.

    It then runs while the module's import lock is held. So it must not import more, or two threads might wait for each
    other.
    """
    if name in sys.modules:
        register(sys.modules[name])
    elif not any(isinstance(finder, _PostImportFinder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _PostImportFinder(name, register))


class _PostImportFinder(MetaPathFinder):
    """Waits for the import of one module, and has it loaded by a `_PostImportLoader`; who only looks gets that, too."""

    def __init__(self, name: str, register: Callable[[Any], Any]) -> None:
        self.name, self.register = name, register
        self._looking = local()

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            spec = find_spec(fullname)
        finally:
            self._looking.now = False
        if spec is not None and spec.loader is not None:
            spec.loader = _PostImportLoader(spec.loader, self)
        return spec


class _PostImportLoader(Loader):
    """Loads a module by its own loader, then registers what is ours with it; otherwise it is that loader."""

    def __init__(self, loader: Loader, finder: _PostImportFinder) -> None:
        self.loader, self.finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # before it is made, as when it is copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader  # leave no trace of the wrapper
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        self.finder.register(module)
