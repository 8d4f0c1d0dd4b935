"""Lazy packages: every name that a stub promises is there, and none is hidden by a module of its name."""

import ast
import importlib
import itertools
from pathlib import Path

import pytest

import skipless

ROOT = Path(skipless.__file__).parent
STUBS = sorted(ROOT.rglob("__init__.pyi"))


def names_of(stub: Path) -> set[str]:
    tree = ast.parse(stub.read_text())
    return {one.asname or one.name for node in tree.body if isinstance(node, ast.ImportFrom) for one in node.names}


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: str(stub.parent.relative_to(ROOT)))
def test_every_promised_name_is_there(stub) -> None:
    package = importlib.import_module(".".join(stub.relative_to(ROOT.parent).parent.parts))
    assert set(package.__all__) == names_of(stub)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in vars(package)  # kept: asked for once


@pytest.mark.parametrize("stub", STUBS[1:], ids=lambda stub: str(stub.parent.relative_to(ROOT)))
def test_no_module_hides_a_name(stub) -> None:
    """Importing `package.name` as a module would put it in the place of the name."""
    modules = {path.stem for path in stub.parent.glob("*.py")} | {
        path.parent.name for path in stub.parent.glob("*/__init__.py")
    }
    assert not names_of(stub) & modules


def test_what_the_top_level_says_stays() -> None:
    """Names that were public before it became lazy."""
    public = (
        "PRESETS SOAP BlockView InputError SkiplessInit WarmupCosine attn_jacobian block_views create_model "
        "initialize_ inspect_init measure_conditioning mlp_jacobian param_groups param_jacobian query_key "
        "remove_skips_ scaled_uniform_orthogonal spectrum value_output"
    )
    assert set(public.split()) <= set(skipless.__all__)


def test_what_recipes_offered_stays() -> None:
    public = (
        "DinoRecipe Exported ModelConfig ModelSource Recipe ScheduleConfig dino evaluate_top1 export_backbone "
        "open_file open_model read_any_recipe read_recipe recorded_classes run scenes table1"
    )
    assert set(public.split()) <= set(skipless.recipes.__all__)


def test_public_constants_say_what_they_are() -> None:
    """A constant has no docstring of its own: a line below it is what the API's page shows."""
    missing = []
    for file in (one for one in sorted(ROOT.rglob("__init__.py")) if "experiments" not in one.parts):
        stub = file.with_suffix(".pyi")
        for taken in ast.parse((stub if stub.exists() else file).read_text(encoding="utf-8")).body:
            if isinstance(taken, ast.ImportFrom):
                names = [alias.name for alias in taken.names if alias.name.isupper()]
                missing += [f"{taken.module}.{name}" for name in names if not _documented(str(taken.module), name)]
    assert not missing


def _documented(module: str, name: str) -> bool:
    file = ROOT.parent.joinpath(*module.split("."))
    if file.is_dir():
        return True  # a package that takes it from elsewhere, where it is looked at
    body = ast.parse(file.with_suffix(".py").read_text(encoding="utf-8")).body
    for statement, below in itertools.pairwise([*body, ast.Pass()]):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    return True  # a class or function
