"""Processes of a sweep are forked from one that has imported what a run needs."""

import json
import sys
from pathlib import Path

from skipless.recipes import table1
from skipless.sweep import run_jobs
from skipless.sweep.child import ChildProcess, start_forkserver

OF_DATA = {"scipy", "sklearn"}  # scikit-learn's digits


def imported_by_a_run(out: Path) -> None:
    """In the child: which modules were there, and which a run imports besides."""
    before = set(sys.modules)
    recipe = table1("digits").with_(fit__epochs=1, fit__device="cpu", fit__progress="none", fit__batch_size=512)
    recipe.run(out / "run")
    (out / "modules.json").write_text(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))


def test_a_child_shares_the_libraries_of_the_server(tmp_path) -> None:
    child = ChildProcess(start_forkserver(), imported_by_a_run, (tmp_path,), 1)
    child.process.join()
    assert (child.process.exitcode, child.message()) == (0, "")
    before, imported = map(set, json.loads((tmp_path / "modules.json").read_text()))
    assert {
        "torch",
        "timm",
        "lightning_fabric",
        "skipless.training.loop.fit",
        "skipless.optim.soap.optimizer",
    } <= before
    libraries = ("torch", "timm", "torchvision", "lightning_fabric", "PIL", "matplotlib")
    assert not {name for name in imported if name.startswith(libraries)}


def test_what_all_jobs_need_is_imported_once_by_the_server(monkeypatch) -> None:
    asked = []
    context = "multiprocessing.context.BaseContext.set_forkserver_preload"
    monkeypatch.setattr(context, lambda _, names: asked.append(names))
    run_jobs([], preload=("skipless.adapters",))
    run_jobs([])
    assert asked[0] == [*asked[1], "skipless.adapters"]
