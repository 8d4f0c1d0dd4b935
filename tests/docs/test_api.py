"""Every public name is on exactly one page of docs/api.

`make docs` then fails if one of these names cannot be described. Here it is only read what the pages ask for.
"""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/skipless"
PAGES = sorted((ROOT / "docs/api").glob("*.md"))
PRIVATE = {"skipless.cli", "skipless.experiments"}  # the command's own, and rooms, whose recipes are public elsewhere


def public_names() -> dict[str, tuple[str, str]]:
    """Each public name, `skipless.optim.SOAP`, and where it is at home: (`skipless.optim.soap.optimizer`, `SOAP`)."""
    found = {}
    for file in sorted(SOURCE.rglob("__init__.py*")):
        package = ".".join(("skipless", *file.parent.relative_to(SOURCE).parts))
        if package not in PRIVATE and not package.startswith("skipless.experiments."):
            found |= {f"{package}.{name}": home for name, home in imported(file).items()}
    return found


def imported(file: Path) -> dict[str, tuple[str, str]]:
    """Names that a stub, or a package that says what is public, takes from modules."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    said = [node for node in tree.body if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0])]
    if file.suffix == ".py" and not (said and isinstance(said[0].value, ast.List)):
        return {}
    taken = [(node, alias) for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return {alias.asname or alias.name: (str(node.module), alias.name) for node, alias in taken}


def home_of(name: str, public: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Where a name is at home, through packages that pass it on."""
    home = public.get(name)
    if home is None:
        module, _, attribute = name.rpartition(".")
        return module, attribute
    return home_of(".".join(home), public) if ".".join(home) != name else home


def documented(text: str) -> list[str]:
    """Names that a page describes, in full."""
    names, module = [], ""
    for line in text.splitlines():
        if found := re.match(r"\.\. (?:currentmodule|automodule):: (\S+)", line):
            module = found[1]
        elif found := re.match(r"\.\. (?:autofunction|autoclass|autoexception|autodata|py:data):: (\S+)", line):
            names.append(found[1] if found[1].startswith("skipless.") else f"{module}.{found[1]}")
    return names


PUBLIC = public_names()
MODULES = {f"skipless.{path.name}" for path in SOURCE.iterdir() if path.is_dir()}
ASKED = {page.name: documented(page.read_text(encoding="utf-8")) for page in PAGES}
PLACES = Counter(home_of(name, PUBLIC) for names in ASKED.values() for name in names)


def test_what_is_compared_is_there() -> None:
    assert len(PUBLIC) > 200
    assert len(PAGES) > 8
    assert PUBLIC["skipless.optim.SOAP"] == ("skipless.optim.soap.optimizer", "SOAP")


@pytest.mark.parametrize("package", sorted({name.rpartition(".")[0] for name in PUBLIC}))
def test_every_public_name_is_on_exactly_one_page(package) -> None:
    names = [name for name in PUBLIC if name.rpartition(".")[0] == package and name not in MODULES]
    times = {name: PLACES[home_of(name, PUBLIC)] for name in names}
    assert times == dict.fromkeys(names, 1)


@pytest.mark.parametrize("page", ASKED)
def test_what_a_page_describes_exists(page) -> None:
    import importlib

    for name in ASKED[page]:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), f"{page}: no {name}"


def test_a_missing_name_and_one_that_is_there_twice_are_found() -> None:
    lines = (".. currentmodule:: skipless.init", ".. autoclass:: SkiplessInit", ".. py:data:: skipless.init.PRESETS")
    names = documented("\n".join(lines))
    assert names == ["skipless.init.SkiplessInit", "skipless.init.PRESETS"]
    assert home_of("skipless.PRESETS", PUBLIC) == home_of("skipless.init.PRESETS", PUBLIC)
    assert home_of("skipless.value_output", PUBLIC) not in [home_of(name, PUBLIC) for name in names]


def test_the_pages_are_in_the_contents() -> None:
    contents = re.findall(r"```\{toctree\}\n.*?\n\n(.*?)```", (ROOT / "docs/api/index.md").read_text(), re.S)[0].split()
    assert sorted(contents) == sorted(page.stem for page in PAGES if page.stem != "index")


def test_every_verb_has_its_help() -> None:
    page = (ROOT / "docs/api/command-line.md").read_text(encoding="utf-8")
    verbs = {path.stem for path in (SOURCE / "cli/verbs").glob("*.py")} - {"__init__"}
    assert {"evaluate"} < verbs
    for verb in (*(verbs - {"evaluate"}), "eval"):
        assert f"-m skipless {verb} --help" in page
