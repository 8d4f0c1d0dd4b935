"""Sphinx configuration; `make docs` builds with warnings as errors.

Pages that begin with a kernel's name, such as `tutorial.md`, are notebooks. The build runs their cells, and fails if
one raises.
"""

import ast
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

project = "skipless"
author = "The skipless authors"
copyright = author
release = metadata.version("skipless")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
source_suffix = {".md": "myst-nb"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"  # nothing of an earlier build is shown
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300  # seconds a cell, on a loaded machine
nb_merge_streams = True

html_theme = "furo"
html_title = f"skipless {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["records.css"]

autodoc_member_order = "bysource"
maximum_signature_line_length = 100
napoleon_use_ivar = True  # else a dataclass's fields are described twice

_CODE = re.compile(r"`+[^`]+`+")


def _to_rst(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Our docstrings are plain text with `code`, made to be read in the source; reStructuredText wants more marks."""
    in_example = False
    for index, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            lines[index] = _escape(line)


def _escape(line: str) -> str:
    """Double the backticks, and keep a formula's `x_` and `|x|` from meaning links."""
    pieces, end = [], 0
    for code in _CODE.finditer(line):
        pieces += [_escape_prose(line[end : code.start()]), f"``{code.group().strip('`').strip()}``"]
        end = code.end()
    return "".join([*pieces, _escape_prose(line[end:])])


def _escape_prose(text: str) -> str:
    return re.sub(r"(?<=\w)_(?!\w)|\|", r"\\\g<0>", text)


def _document_constants() -> None:
    """Autodoc looks for a constant's docstring where it is shown; ours stand where a package takes them from."""
    source = Path(__file__).parents[1] / "src"
    for file in sorted(source.rglob("__init__.py")):
        stub = file.with_suffix(".pyi")
        tree = ast.parse((stub if stub.exists() else file).read_text(encoding="utf-8"))
        package = ModuleAnalyzer.for_module(".".join(file.parent.relative_to(source).parts))
        package.analyze()
        for taken in (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module):
            for name in (alias.name for alias in taken.names if alias.name.isupper()):
                origin = ModuleAnalyzer.for_module(str(taken.module))
                origin.analyze()
                if said := origin.attr_docs.get(("", name)):
                    package.attr_docs["", name] = said


def setup(app: Any) -> None:
    """Run before napoleon (priority 500), which reads the sections."""
    _document_constants()
    app.connect("autodoc-process-docstring", _to_rst, priority=400)
