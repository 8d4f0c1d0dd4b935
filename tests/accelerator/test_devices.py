"""No test that takes `device` runs elsewhere: on the meta device each must make something there, or be refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

THIS = Path(__file__).resolve()
ROOT = THIS.parents[2]
BESIDE = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
IGNORES = """
import pytest
import torch

def test_ignores(device):
    assert torch.zeros(3).sum() == 0

def test_skips_itself(device):
    if device.type != "cpu":
        pytest.skip("only on a CPU")

def test_uses(device):
    assert torch.zeros(3, device=device).sum().item() == 0

def test_has_none():
    assert torch.zeros(3).sum() == 0
"""
MARKED = """
import pytest

@pytest.mark.accelerator
def test_has_none():
    pass
"""


def run_pytest(*arguments: str, folder: Path = ROOT) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def with_device() -> list[str]:
    """All files of tests that take `device`."""
    takes = re.compile(r"^def test_\w+\([^)]*\bdevice\b(?! *: *str)", re.MULTILINE)
    return [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if takes.search(file.read_text())]


@pytest.mark.slow
def test_all_tests_on_a_device_are_there() -> None:
    files = with_device()
    assert len(files) >= 6
    code, said = run_pytest(*files, "-m", "accelerator", "--device", "meta", "-n", "0", "--tb=line")
    assert code == 0, said
    assert "skipped" not in said
    assert "xfailed" not in said


def test_no_test_waits_for_a_gpu_of_its_own() -> None:
    """It takes `device` instead, so that it runs on a CPU too."""
    asks = re.compile(r"skipif\(.*cuda")
    assert not [file for file in (ROOT / "tests").rglob("*.py") if asks.search(file.read_text()) and file != THIS]


@pytest.mark.slow
def test_a_test_that_ignores_its_device_is_found(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(BESIDE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = accelerator\n")
    (tmp_path / "test_some.py").write_text(IGNORES)
    code, said = run_pytest("--device", "meta", "-m", "accelerator", folder=tmp_path)
    assert code == 1
    assert "2 failed, 1 passed, 1 deselected" in said
    code, said = run_pytest("--device", "cpu", folder=tmp_path)
    assert (code, "4 passed" in said) == (0, True), said


def test_a_mark_without_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(BESIDE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = accelerator\n")
    (tmp_path / "test_some.py").write_text(MARKED)
    code, said = run_pytest(folder=tmp_path)
    assert code != 0
    assert "is marked `accelerator`, but does not take the fixture `device`" in said
