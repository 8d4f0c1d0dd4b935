"""Registers the skipless models and SOAP in timm's registries, whichever of timm and skipless is imported first.

`import skipless` imports neither torch nor timm. What timm has imported already is met at once. For the rest, a
post-import hook waits for timm's module.
"""

import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_MODELS = "timm"
_OPTIMIZERS = "timm.optim._optim_factory"  # which `import timm` leaves alone, and `import timm.optim` imports
_SOAP = "skipless.optim.soap.optimizer.SOAP"


def register_with_timm() -> None:
    """Register the skipless models and SOAP with timm, now or once timm is imported."""
    for name, register in ((_MODELS, _register_models), (_OPTIMIZERS, _register_soap)):
        if name in sys.modules:
            register(sys.modules[name])
        elif not any(isinstance(finder, _PostImportFinder) and finder.name == name for finder in sys.meta_path):
            sys.meta_path.insert(0, _PostImportFinder(name, register))


def _register_models(_: ModuleType) -> None:
    importlib.import_module("skipless.models.surgery")  # importing it registers them


def _register_soap(factory: ModuleType) -> None:
    """Add SOAP to timm's optimizers by its path, so that it is imported when it is asked for.

    An optimizer that timm itself, or somebody else, has by this name stays.
    """
    if "soap" in factory.list_optimizers():
        return
    info = factory.OptimInfo(
        name="soap",
        opt_class=_SOAP,
        description="Shampoo with Adam in the preconditioner's eigenbasis, skipless's implementation",
        has_betas=True,
    )
    factory.default_registry.register(info)


class _PostImportFinder(MetaPathFinder):
    """Waits for the import of one module, removes itself, and wraps the module's loader in a `_PostImportLoader`."""

    def __init__(self, name: str, register: Callable[[ModuleType], None]) -> None:
        self.name, self.register = name, register

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _PostImportLoader(spec.loader, self.register)
        return spec


class _PostImportLoader(Loader):
    """Loads a module by its own loader, then registers what is ours with it."""

    def __init__(self, loader: Loader, register: Callable[[ModuleType], None]) -> None:
        self.loader, self.register = loader, register

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader  # leave no trace of the wrapper
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.register(module)
