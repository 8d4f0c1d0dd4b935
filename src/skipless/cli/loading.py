"""What a person sees while libraries are imported, which takes seconds."""

import importlib
import sys
import threading

AFTER_S = 0.5
MODELS = ("torch", "timm")
RUNS = (*MODELS, "lightning_fabric")


def load(*libraries: str) -> None:
    """Import libraries that a verb is about to use; on a terminal, say so if it takes long."""
    missing = [name for name in libraries if name not in sys.modules]
    if not missing:
        return
    text, loaded = f"loading {', '.join(missing)} ...", threading.Event()
    teller = threading.Thread(target=_tell, args=(text, loaded), daemon=True) if sys.stderr.isatty() else None
    if teller is not None:
        teller.start()
    try:
        for name in missing:
            importlib.import_module(name)
    finally:
        loaded.set()
        if teller is not None:
            teller.join()


def _tell(text: str, loaded: threading.Event) -> None:
    """Show a text once the import is slow, and take it away at its end."""
    if loaded.wait(AFTER_S):
        return
    print(text, end="", file=sys.stderr, flush=True)
    loaded.wait()
    print(f"\r{' ' * len(text)}\r", end="", file=sys.stderr, flush=True)
