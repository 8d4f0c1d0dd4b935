"""Packages whose names are imported when they are first asked for (PEP 562).

Beside such a package's `__init__.py` lies a stub, `__init__.pyi`, which says where each name comes from. Type checkers
and editors read it as they read any stub; here it is read once, when the package is imported.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package, from the imports in the stub beside it.

    Submodules are attributes, too, as they are of a package that imports them all.

    Args:
        package: its `__name__`.
        file: its `__file__`.
    """
    loader: Any = sys.modules[package].__loader__  # it reads from archives, too
    stub = ast.parse(loader.get_data(str(Path(file).with_suffix(".pyi"))))
    places = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }

    def get(name: str) -> Any:
        module, attribute = places.get(name, (package, name))
        if module != package:
            value = getattr(importlib.import_module(module), attribute)
        elif name.isidentifier() and not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # once is enough
        return value

    def names() -> list[str]:
        own = vars(sys.modules[package])
        special = {name for name in own if name.startswith("__")}
        loaded = {name for name in own if f"{package}.{name}" in sys.modules}
        return sorted({*places, *special, *loaded})

    return get, names, sorted(places)
