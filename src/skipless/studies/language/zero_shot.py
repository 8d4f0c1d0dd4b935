"""Zero-shot study: accuracy of a language model at the tasks of Table 7, beside chance and the most frequent answer."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipless.display import Record, Table
from skipless.evaluators.features.store_builder import files_identity
from skipless.evaluators.language.zero_shot.score_tasks import check_tasks, score_tasks
from skipless.evaluators.language.zero_shot.scores import TaskScore, TaskScores
from skipless.recipes.source import ModelSource
from skipless.studies.config import ZeroShotConfig
from skipless.studies.language.subject import subject
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import ZERO_SHOT, trust
from skipless.studies.study_folder import StudyFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Published:
    """Accuracies that others have published for the same questions.

    Attributes:
        accuracies: in per cent, by model and task.
        questions: how many questions of each task they are of.
        setting: of which models, in words.
    """

    accuracies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    questions: Mapping[str, int] = field(default_factory=dict)
    setting: str = ""

    def beside(self, scores: TaskScores) -> dict[str, dict[str, float]]:
        """Those of tasks of which all questions have been asked."""
        asked = [one.task for one in scores.scores if one.n == self.questions.get(one.task)]
        found = {model: {task: of[task] for task in asked if task in of} for model, of in self.accuracies.items()}
        return {model: of for model, of in found.items() if of}


NONE_PUBLISHED = Published()


@dataclass(frozen=True, eq=False, repr=False)
class ZeroShotResult(Record):
    """Zero-shot accuracies of a language model.

    Attributes:
        model: name of the model.
        config: settings of the study.
        scores: by the harness.
        setting: what the published numbers beside them are of; empty where there are none.
        folder: with the files of the study; None where none were written.
    """

    model: str
    config: ZeroShotConfig
    scores: TaskScores
    setting: str = ""
    folder: Path | None = None

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        return {"model": self.model, **asdict(self.scores)}

    def _summary(self) -> str:
        return f"{self.model}, {self.scores._summary()}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each task."""
        (table,) = self.scores.tables()
        beside = [f"beside it, of the same questions: {self.setting}"] if self.scores.beside else []
        return (replace(table, caption=f"{self.model}, {table.caption}", notes=[*table.notes, *beside]),)

    def _draw(self, axes: "Axes") -> None:
        self.scores._draw(axes)

    def __str__(self) -> str:
        (table,) = self.tables()
        return "\n".join([table.markdown(), "", table.caption, *table.notes])


def zero_shot(
    source: ModelSource,
    config: ZeroShotConfig,
    *,
    data_dir: Path | None = None,
    tokenizer: str | None = None,
    out: Path,
    published: Published = NONE_PUBLISHED,
    origin: Origin = UNSAID,
) -> ZeroShotResult:
    """Measure a language model at zero-shot tasks, by `lm-eval`. Tasks that are done are kept, and the next go on.

    Args:
        source: what `open_model` has opened: a run of a language model, or a checkpoint of Hugging Face's.
        config: the tasks, and other settings.
        data_dir: folder of local copies of the data sets; see `score_tasks`.
        tokenizer: another tokenizer file; None takes the model's own.
        out: parent of the study's folder.
        published: numbers to show beside, where all their questions are asked.
        origin: whose weights these are and which command asks for it.

    Raises:
        InputError: if it is no causal model, and as `score_tasks`.
    """
    names, local = check_tasks(config.tasks, data_dir)
    of = subject(source, tokenizer=tokenizer, context=config.context)
    data = {name: "hub" if found is None else files_identity(found[1]) for name, found in local.items()}
    words = of.tokenizer()
    settings = {
        "model": of.identity,
        "tokenizer": _identity(words),
        "context": of.context,
        "harness": version("lm_eval"),
        "config": {key: value for key, value in asdict(config).items() if key not in ("tasks", "batch_size")},
    }
    folder = StudyFolder(out, "zero-shot", settings, state=origin.state)
    done = {(line["score"]["task"], line["data"]): line for line in folder.read_journal()}
    begins = {"auto": None, "yes": True, "no": False}[config.begins]
    for name in names:
        if (name, data[name]) not in done:
            options = {"limit": config.limit, "context": of.context, "batch_size": config.batch_size, "begins": begins}
            found = score_tasks(of.model, words, [name], data=data_dir, **options)
            line = {"score": asdict(found.scores[0]), "data": data[name], "begins": found.begins}
            folder.append_journal(line)
            done[name, data[name]] = line
    lines = [done[name, data[name]] for name in names]
    scores = TaskScores(
        tuple(TaskScore(**line["score"]) for line in lines), of.context, lines[0]["begins"], settings["harness"],
        config.limit,
    )  # fmt: skip
    scores = replace(scores, beside=published.beside(scores))
    result = ZeroShotResult(source.title, config, scores, published.setting if scores.beside else "", folder.path)
    folder.finish(result.record(), str(result))
    shown = {"name": source.title, "data": "", "config": config, "notes": trust(ZERO_SHOT, origin, 0)}
    write_study_page(folder, ZERO_SHOT, result, model=of.model, origin=origin, **shown)
    return result


def _identity(tokenizer: Any) -> str:
    """A hash of all that decides a tokenizer's ids."""
    if hasattr(tokenizer, "sha256"):
        return tokenizer.sha256
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = repr(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(content.encode()).hexdigest()
