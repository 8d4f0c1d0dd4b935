"""docs/plan.md shows what its commands print."""

import pytest
from planning.renew_page import END, PAGE, renewed


@pytest.mark.slow
def test_the_page_is_what_its_commands_print() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(END) >= 4
    assert renewed(text) == text, "docs/plan.md is stale: run `python tests/planning/renew_page.py`"


def test_one_of_its_commands_is_renewed() -> None:
    """The quick half of the above: a stale number does not stand."""
    text = f"```sh\nskipless plan vit_tiny_patch16_224 --devices 1 --optimizer adamw\n```\n\n| 1 |\n{END}\n"
    assert "| vit_tiny_patch16_224 | adamw " in renewed(text)
    assert "| 1 |\n" not in renewed(text)
    assert renewed(renewed(text)) == renewed(text)
