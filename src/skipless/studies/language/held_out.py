"""Held-out text study: bits per byte of a language model beside what counts of tokens reach, and a sample."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skipless.choices import Documents
from skipless.data.text import TextData
from skipless.display import Record, Table
from skipless.display.axes import bars
from skipless.display.values import place_name
from skipless.evaluators.language import TextFloors, TextSample, TextScore, sample_text, score_text, text_floors
from skipless.recipes.language import EVALUATED_TOKENS
from skipless.recipes.source import ModelSource
from skipless.studies.config import HeldOutConfig
from skipless.studies.language.subject import subject
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import HELD_OUT, trust
from skipless.studies.study_folder import StudyFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class HeldOutResult(Record):
    """How well a language model predicts held-out text.

    Attributes:
        model: name of the model.
        data: name of the text.
        config: settings of the study.
        score: of the model.
        floors: what counts of the training text's tokens reach there.
        sample: text that the model has written.
        tokenizer: name of the tokenizer.
        folder: with the files of the study; None where none were written.
    """

    model: str
    data: str
    config: HeldOutConfig
    score: TextScore
    floors: TextFloors
    sample: TextSample
    tokenizer: str
    folder: Path | None = None

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        parts = {"score": asdict(self.score), "floors": asdict(self.floors), "sample": asdict(self.sample)}
        return {"model": self.model, "data": self.data, "tokenizer": self.tokenizer, **parts}

    def _summary(self) -> str:
        bits, floors = self.score.bits_per_byte, self.floors
        beside = f"bigram {floors.bigram_bits:.3f}, unigram {floors.unigram_bits:.3f}"
        return f"{self.model} on {self.data}, {bits:.3f} bits per byte ({beside}), n = {self.score.tokens:,} tokens"

    def tables(self) -> tuple[Table, ...]:
        """The model beside the floors, its loss by position, and the sample."""
        score, floors = self.score, self.floors
        rows = [
            (self.model, f"{score.bits_per_byte:.4f}", f"{score.loss:.4f}", f"{score.perplexity:.4g}"),
            ("bigram counts", f"{floors.bigram_bits:.4f}", f"{floors.bigram:.4f}", ""),
            ("unigram counts", f"{floors.unigram_bits:.4f}", f"{floors.unigram:.4f}", ""),
        ]
        head = ("held-out text", "bits per byte", "nats a token", "perplexity")
        described, positions = score.tables()
        about = f"{self.data} by {self.tokenizer}: {described.caption}"
        notes = [f"counts of {floors.train_tokens:,} training tokens, smoothed: add one, Witten-Bell"]
        return (Table(head, rows, about, notes, align="lrrr"), positions, *self.sample.tables())

    def _draw(self, axes: "Axes") -> None:
        values = {self.model: self.score.bits_per_byte, "bigram counts": self.floors.bigram_bits}
        bars(axes, values | {"unigram counts": self.floors.unigram_bits}, "bits per byte of held-out text")

    def __str__(self) -> str:
        first, _, sample = self.tables()
        said = [table.markdown() + f"\n\n{table.caption}" for table in (first, sample)]
        return "\n\n".join([said[0], *first.notes, said[1]])


def held_out_text(
    source: ModelSource,
    config: HeldOutConfig | None = None,
    *,
    data: str | None = None,
    tokenizer: str | None = None,
    documents: Documents | None = None,
    out: Path,
    origin: Origin = UNSAID,
) -> HeldOutResult:
    """Measure a language model on held-out text; what was found before is read from its folder.

    Args:
        source: what `open_model` has opened: a run of a language model, or a checkpoint of Hugging Face's.
        config: settings of the study.
        data: another text, as `skipless train language --data` takes it; None takes the run's own.
        tokenizer: another tokenizer file; None takes the model's own.
        documents: what a document is in another text, as in `TextConfig`.
        out: parent of the study's folder.
        origin: whose weights these are and which command asks for it.

    Raises:
        InputError: if it is no causal model, or text or tokenizer are not there or do not go with the model.
    """
    config = config or HeldOutConfig()
    of = subject(source, tokenizer=tokenizer, context=config.context)
    text = of.text(data, documents)
    named = place_name(text.source)
    settings = {"text": text.identity, "model": of.identity, "context": of.context, "config": asdict(config)}
    folder = StudyFolder(out, f"language-{named}", settings, state=origin.state)
    score, floors, sample = _kept(folder) or _measured(of.model, text, of.context, config)
    said = (source.title, named, config, score, floors, sample, place_name(text.about["tokenizer"]["name"]))
    result = HeldOutResult(*said, folder.path)
    folder.finish(result.record(), str(result))
    shown = {"name": source.title, "data": named, "config": config, "notes": trust(HELD_OUT, origin, 0)}
    write_study_page(folder, HELD_OUT, result, model=of.model, origin=origin, **shown)
    return result


Found = tuple[TextScore, TextFloors, TextSample]


def _measured(model: Any, text: TextData, context: int, config: HeldOutConfig) -> Found:
    batch = max(1, EVALUATED_TOKENS // context)
    score = score_text(
        model, text.val, context=context, stride=config.stride, batch_size=batch, most=config.held_out
    )  # fmt: skip
    floors = text_floors(text.train, text.val, vocabulary=text.vocabulary, held_out=config.held_out)
    how = {"tokens": config.sample_tokens, "temperature": config.temperature, "seed": config.seed}
    return score, floors, sample_text(model, text.tokenizer, config.prompt, context=context, **how)


def _kept(folder: StudyFolder) -> Found | None:
    """What an earlier call has written; None where there is nothing that can be read."""
    held = folder.kept() or {}
    try:
        return (
            TextScore(**_tuples(held["score"])),
            TextFloors(**held["floors"]),
            TextSample(**_tuples(held["sample"])),
        )
    except (KeyError, TypeError):
        return None


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
