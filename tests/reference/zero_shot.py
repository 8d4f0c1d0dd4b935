"""Small local copies of the five tasks of Table 7, and their prompts and answers written out by hand."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

BOOLQ = [
    {
        "question": "is the cat on the mat",
        "passage": f"The cat {word} on the mat. It is the {i}th day.",
        "idx": i,
        "label": int(i % 3 > 0),
    }
    for i, word in enumerate(("sat", "sits", "was", "slept", "lay"))
]
HELLASWAG = [
    {
        "ind": i,
        "activity_label": "Removing ice",
        "ctx_a": f"Then [title] a man of {i} years scrapes ice.",
        "ctx_b": "he",
        "ctx": "unused",
        "endings": [
            "wipes [substeps] the window.",
            "walks away  slowly.",
            "is a fish",
            "sings a song of sixpence and a pocket full of rye.",
        ],
        "source_id": f"activity~v_{i}",
        "split": "val",
        "split_type": "indomain",
        "label": str(i % 4),
    }
    for i in range(5)
]
WINOGRANDE = [
    {
        "sentence": f"Ann asked Mary {what} because _ was late.",
        "option1": "Ann",
        "option2": "Mary",
        "answer": str(1 + i % 2),
    }
    for i, what in enumerate(("to run", "for help", "to wait", "about it", "to stay"))
]
PIQA = [
    {"goal": f"boil {i} eggs", "sol1": "put them in hot water", "sol2": "put them on ice", "label": int(i == 2)}
    for i in range(5)
]
SOCIAL = [
    {
        "context": f"Kim {verb} the dog.",
        "question": "What will Kim want to do next?",
        "answerA": "go home",
        "answerB": "feed it some meat",
        "answerC": "swim",
        "label": str(1 + i % 3),
    }
    for i, verb in enumerate(("found", "lost", "saw", "took", "held"))
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "boolq": BOOLQ,
    "hellaswag": HELLASWAG,
    "winogrande": WINOGRANDE,
    "piqa": PIQA,
    "social_iqa": SOCIAL,
}


def write_copies(folder: Path, kind: str = "jsonl") -> Path:
    """A folder with a copy of each task's validation split."""
    for name, rows in ROWS.items():
        (folder / name).mkdir(parents=True)
        if kind == "jsonl":
            lines = "".join(f"{json.dumps(row)}\n" for row in rows)
            (folder / name / "validation.jsonl").write_text(lines, encoding="utf-8")
        else:
            import pyarrow as pa
            from pyarrow import parquet

            for shard, part in enumerate((rows[:3], rows[3:])):
                file = folder / name / f"validation-0000{shard}-of-00002.parquet"
                parquet.write_table(pa.Table.from_pylist(part), file)
    return folder


def _plain(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def pairs(name: str, row: dict[str, Any]) -> tuple[list[tuple[str, str]], list[str], int]:
    """Question and continuation of every answer; the answers, whose characters acc_norm counts; which is right."""
    if name == "boolq":
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        return [(prompt, " no"), (prompt, " yes")], ["no", "yes"], row["label"]
    if name == "hellaswag":
        prompt = _plain(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        endings = [_plain(ending) for ending in row["endings"]]
        return [(prompt, f" {ending}") for ending in endings], endings, int(row["label"])
    if name == "winogrande":
        before, after = row["sentence"].split("_")
        options = [row["option1"], row["option2"]]
        return [(before + option, f" {after.strip()}") for option in options], options, int(row["answer"]) - 1
    if name == "piqa":
        answers = [row["sol1"], row["sol2"]]
        return [(f"Question: {row['goal']}\nAnswer:", f" {one}") for one in answers], answers, row["label"]
    answers = [row["answerA"], row["answerB"], row["answerC"]]
    prompt = f"Q: {row['context']} {row['question']}\nA:"
    return [(prompt, f" {one}") for one in answers], answers, int(row["label"]) - 1


def by_hand(
    model: nn.Module, encode: Callable[[str], list[int]], name: str, begin: list[int], context: int
) -> tuple[float, float]:
    """Accuracy and accuracy by length, in per cent, from log-likelihoods of a token at a time."""
    right, right_by_length = [], []
    for row in ROWS[name]:
        asked, answers, correct = pairs(name, row)
        found = []
        for question, continuation in asked:
            whole = [*begin, *encode(question + continuation)]
            count = len(whole) - len(begin) - len(encode(question))
            kept = whole[-(context + 1) :]
            with torch.no_grad():
                logits = model(torch.tensor([kept[:-1]])).logits[0].log_softmax(-1)
            found.append(sum(logits[at - 1, kept[at]].item() for at in range(len(kept) - count, len(kept))))
        lengths = [len(answer) for answer in answers]
        by_length = [value / length for value, length in zip(found, lengths, strict=True)]
        right.append(max(range(len(found)), key=found.__getitem__) == correct)
        right_by_length.append(max(range(len(found)), key=by_length.__getitem__) == correct)
    return 100 * sum(right) / len(right), 100 * sum(right_by_length) / len(right_by_length)
