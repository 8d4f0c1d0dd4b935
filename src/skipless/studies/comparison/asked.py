"""What is compared: the models, the data and the folder for results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from skipless.errors import InputError
from skipless.recipes import ModelSource
from skipless.studies.origin import Origin


class Told(NamedTuple):
    """What is printed of one model, or of all side by side, and the page that was written of it."""

    text: str
    page: Path | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """The models to compare, the data to use, and the folder for results.

    Attributes:
        study: name of the study, for messages.
        sources: the models.
        data: folder or name of the data; None for what the first model was trained on.
        home: folder for results.
        seed: seed of the samples.
        sample: number of images to use; None for all.
        dataset: name of the data set in the folder; None recognises it by its layout.
        command: the command line that asks for it.
    """

    study: str
    sources: Sequence[ModelSource]
    data: str | None
    home: Path
    seed: int = 0
    sample: int | None = None
    dataset: str | None = None
    command: str = ""

    def origin(self, source: ModelSource) -> Origin:
        """What a study of one of the models is told of it and of the call."""
        return Origin(source.state, self.command)

    @property
    def folder(self) -> Path:
        """The folder of the data.

        Raises:
            InputError: if none was given, or it does not exist.
        """
        if self.data is None:
            raise InputError(
                f"{self.study} needs --data, a folder; `skipless data scenes --out DIR` writes one to try it on"
            )
        folder = Path(self.data).expanduser()
        if not folder.is_dir():
            raise InputError(f"--data {self.data!r} is no folder")
        return folder
