"""Sine-activated LoRA on PEFT (arXiv 2403.19243), quantised too (2505.21895). Importing this tells PEFT of it."""

from skipless.errors import InputError
from skipless.lazy import attach_stub
from skipless.optional import how_to_install, is_installed

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

if not is_installed("peft"):
    raise InputError(f"skipless.adapters needs PEFT: {how_to_install('peft')}")

from skipless.adapters.registration import register  # noqa: E402  # it needs PEFT

register()
