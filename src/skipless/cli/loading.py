"""What a person sees while torch is imported, which takes seconds."""

import importlib
import sys
import threading

AFTER_S = 0.5
TEXT = "loading torch ..."


def load_torch() -> None:
    """Import torch; on a terminal, say so if it takes long."""
    if "torch" in sys.modules:
        return
    loaded = threading.Event()
    told = threading.Thread(target=_tell, args=(loaded,), daemon=True)
    if sys.stderr.isatty():
        told.start()
    try:
        importlib.import_module("torch")
    finally:
        loaded.set()
        if sys.stderr.isatty():
            told.join()


def _tell(loaded: threading.Event) -> None:
    if loaded.wait(AFTER_S):
        return
    print(TEXT, end="", file=sys.stderr, flush=True)
    loaded.wait()
    print(f"\r{' ' * len(TEXT)}\r", end="", file=sys.stderr, flush=True)
