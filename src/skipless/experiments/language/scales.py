"""At which sizes language models are trained, which of them, and how the paper's scheme is read, as types."""

from typing import Literal, get_args

LanguageScale = Literal["tiny", "paper"]
Reading = Literal["paper", "compensated", "sharp"]
LanguageRow = Literal[
    "skip", "skipless", "skipless + init", "skipless + init, compensated", "skipless + init, sharp", "skipless + ours"
]
LANGUAGE_ROWS: tuple[LanguageRow, ...] = get_args(LanguageRow)
