"""A tiny causal transformer, registered as a library of its own, and text for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipless.data.text import TextConfig
from skipless.models.libraries import LIBRARIES
from skipless.optim.config import OptimizerConfig
from skipless.recipes import LanguageRecipe, ModelConfig, ScheduleConfig
from skipless.tasks import LanguageConfig
from skipless.training import FitConfig

CONTEXT = 16
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "dogs", "ran", "über", "hills")


class TinyCausal(nn.Module):
    """Embedding, one block of causal attention and MLP, head; with skips or without."""

    def __init__(self, vocabulary: int, context: int, dim: int = 16, *, skip: bool = True, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed, self.places = nn.Embedding(vocabulary, dim), nn.Embedding(context, dim)
            self.norm, self.qkv, self.proj = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.mlp_norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
            self.final_norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, vocabulary)
            self.dropout = nn.Dropout(0.1)
        self.skip = float(skip)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.places.weight[: ids.shape[1]]
        q, k, v = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        x = self.skip * x + self.dropout(self.proj(attended))
        x = self.skip * x + self.down(F.gelu(self.up(self.mlp_norm(x))))
        return self.head(self.final_norm(x))


class Wrapped(nn.Module):
    """Returns an object with `logits`, as Hugging Face's models do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor) -> Any:
        return type("Output", (), {"logits": self.inner(ids)})()


class Deaf(nn.Module):
    """Learns how frequent each token is, and hears nothing of its input."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, ids: Tensor) -> Tensor:
        return self.bias.expand(*ids.shape, -1)


def build_toy(
    name: str,
    image_size: int,
    channels: int,
    classes: int,
    *,
    skip: bool,
    seed: int,
    kwargs: Mapping[str, Any],
    **_: Any,
) -> nn.Module:
    assert channels == 0
    if name == "deaf":
        return Deaf(classes)
    return TinyCausal(classes, image_size, skip=skip, seed=seed, **kwargs)


@contextmanager
def toy_library() -> Iterator[None]:
    LIBRARIES["toy"] = build_toy
    try:
        yield
    finally:
        del LIBRARIES["toy"]


def sentence(i: int, words: int = 12) -> str:
    state = i * 7919 + 13
    chosen = []
    for _ in range(words):
        state = (state * 1103515245 + 12345) % 2**31
        chosen.append(WORDS[(state >> 8) % len(WORDS)])
    return " ".join(chosen)


def write_lines(folder: Path, count: int = 60) -> Path:
    """A file with a document a line."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sentences.txt"
    file.write_text("".join(f"{sentence(i)}\n" for i in range(count)), encoding="utf-8")
    return file


def tiny_recipe(data: Path, **changes: Any) -> LanguageRecipe:
    recipe = LanguageRecipe(
        name="language",
        scale="toy",
        model=ModelConfig("tiny", skip=True, library="toy"),
        data=TextConfig(str(data), context=CONTEXT, validation=0.2, documents="line"),
        optimizer=OptimizerConfig(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1),
        schedule=ScheduleConfig(warmup_steps=3, final_share=0.1),
        fit=FitConfig(
            epochs=1, batch_size=8, clip_norm=1.0, steps=20, evaluate_steps=8, checkpoint_every=5, log_every=4,
            workers=0, device="cpu", progress="none",
        ),
        objective=LanguageConfig(),
    )  # fmt: skip
    return recipe.with_(**changes)
