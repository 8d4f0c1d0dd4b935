"""PEFT as these tests need it, whatever its version."""

import importlib.util

if importlib.util.find_spec("peft") is None:  # the extra `adapters` is not installed
    collect_ignore_glob = ["test_*.py"]
else:
    from reference.sine import hide_torchao

    hide_torchao()
