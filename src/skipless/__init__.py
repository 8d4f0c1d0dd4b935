"""Train, measure and evaluate transformers without skip connections (arXiv 2510.00345)."""

from typing import Any

from skipless.lazy import attach_stub
from skipless.models.libraries.hf_registry import register_with_transformers
from skipless.models.libraries.timm_registry import register_with_timm

_get, _names, __all__ = attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for; the version is the installed one's."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("skipless")
        except PackageNotFoundError:  # its source is on the path, and nothing is installed
            return "0+unknown"
    return _get(name)


def __dir__() -> list[str]:
    return sorted({*_names(), "__version__"})


register_with_timm()
register_with_transformers()
