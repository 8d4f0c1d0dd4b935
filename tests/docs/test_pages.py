"""README and docs: links lead somewhere, numbers stand in one place only, pictures are small and can be drawn again."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
PAGES = [page for page in PAGES if "_build" not in page.parts]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def links(text: str) -> list[str]:
    """Targets of links and pictures, outside of code."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(text: str) -> set[str]:
    """How GitHub names the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_somewhere(name) -> None:
    page = ROOT / name
    for link in links(page.read_text(encoding="utf-8")):
        if link.startswith(("http", "#skipless.")):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name}: {link}"


def test_a_dead_link_is_found() -> None:
    assert links("see [a](docs/none.md#x) and `[b](c)`, ![d](e.png)\n```\n[f](g)\n```") == ["docs/none.md#x", "e.png"]
    assert anchors("# DINO without skips\n## `x`: y") == {"dino-without-skips", "x-y"}


def test_readme_is_of_use_at_once() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    opening = text.split("\n## ")[0]
    assert len(opening.split()) < 200
    assert len(re.findall(r"^!\[", opening, re.M)) == 1
    heads = re.findall(r"^## (.+)$", text, re.M)
    assert heads[:2] == ["Install", "Six lines"]
    code = re.search(r"## Six lines\n\n```python\n(.*?)```", text, re.S)
    assert code is not None
    assert len(code[1].split("\n")) - 1 == 6


def test_the_package_is_on_no_index() -> None:
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            assert not re.search(r"pip install '?skipless", page.read_text(encoding="utf-8")), page


def drawn() -> Any:
    spec = importlib.util.spec_from_file_location("dino_knn", ROOT / "docs/images/dino_knn.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_picture_has_the_numbers_of_log_and_readme() -> None:
    module = drawn()
    found = module.accuracies((ROOT / "LOG.md").read_text(encoding="utf-8"))
    assert {row: len(values) for row, values in found.items()} == dict.fromkeys(module.ROWS, 8)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row, values in found.items():
        line = " | ".join(f"{values[epoch - 1]:.1f}" for epoch in (1, 2, 4, 8))
        assert f"| {row} | {line} |" in readme.replace("**", "")
    assert len(module.draw(found).axes[0].lines) == len(module.ROWS) + 1


@pytest.mark.parametrize("picture", sorted(path.name for path in (ROOT / "docs/images").glob("*.png")))
def test_a_picture_is_small_and_shown_beside_its_command(picture) -> None:
    assert (ROOT / "docs/images" / picture).stat().st_size < 250_000
    shown = [page for page in PAGES if f"images/{picture}" in page.read_text(encoding="utf-8")]
    assert shown
    assert all("`skipless " in page.read_text(encoding="utf-8") for page in shown)
