"""Write what the commands of docs/plan.md print into that page anew: `python tests/planning/renew_page.py`."""

import contextlib
import io
import re
import shlex
from pathlib import Path

from skipless import cli

PAGE = Path(__file__).parents[2] / "docs" / "plan.md"
END = "<!-- end of what the command prints -->"
_BLOCK = re.compile(rf"(```sh\nskipless (plan [^\n]*)\n```\n\n).*?({re.escape(END)})", re.DOTALL)


def renewed(text: str) -> str:
    """The page with what its commands print now."""
    return _BLOCK.sub(lambda found: f"{found[1]}{printed(found[2])}\n{found[3]}", text)


def printed(command: str) -> str:
    """What a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        cli.main(shlex.split(command))
    return out.getvalue()


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
