"""LanguageModel: windows of tokens in, next-token cross-entropy out, and a monitor of models that learn nothing."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from skipless.errors import InputError
from skipless.models.logits import next_token_logits
from skipless.tasks.language_config import LanguageConfig

IGNORE = -100
"""Id of padding: it is predicted by nothing, and nothing is predicted from it."""

REMEDY = (
    "the blocks pass nothing on: make attention start closer to the identity (a larger beta, or a compensated logit "
    "scale), start a gated MLP with equal gate and up matrices, warm up for longer or try another learning rate"
)


class LanguageModel(nn.Module):
    """A causal model and its loss.

    A model without skips does not fail with NaN: its loss sticks at the unigram entropy of the text, what one gets from
    the frequencies of tokens alone. The task looks for that every `config.watch_every` steps.

    Args:
        model: maps ids `(b, t)` to logits `(b, t, v)`, or to an object with `logits`, as Hugging Face's models do.
        config: options.
        bytes_per_token: bytes of text for each predicted token. With it the loss is logged in bits per byte, too.
        unigram_entropy: entropy of the training tokens, in nats; None turns the monitor off.
        warmup: steps of the learning rate's warm-up, after which the monitor counts.

    Attributes:
        model: the model, which is also evaluated.
        watched: mean losses of the steps since the monitor's last look, added up; and their number.

    Example:
        >>> task = LanguageModel(nn.Embedding(5, 5), bytes_per_token=2.0)
        >>> sorted(task(torch.tensor([[0, 1, 2, 3]])))
        ['bits_per_byte', 'loss']
    """

    watched: Tensor

    def __init__(
        self,
        model: nn.Module,
        config: LanguageConfig | None = None,
        *,
        bytes_per_token: float | None = None,
        unigram_entropy: float | None = None,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config or LanguageConfig()
        self.bytes_per_token, self.unigram_entropy, self.warmup = bytes_per_token, unigram_entropy, warmup
        self.register_buffer("watched", torch.zeros(2))
        self._losses: list[Tensor] = []

    def forward(self, tokens: Int64[Tensor, "b t1"]) -> dict[str, Float[Tensor, ""]]:
        """Return the mean loss in nats a token, and in bits per byte of text if their number is known.

        Args:
            tokens: windows; each token but the first is predicted from those before it. `IGNORE` is padding.

        Raises:
            InputError: if there is nothing to predict.
        """
        if tokens.shape[1] < 2:
            raise InputError(f"windows of {tokens.shape[1]} token: there is no next one to predict; give 2 or more")
        inputs, targets = tokens[:, :-1].clamp_min(0), tokens[:, 1:]
        targets = targets.masked_fill(tokens[:, :-1] < 0, IGNORE)
        loss = chunked_cross_entropy(next_token_logits(self.model, inputs), targets, self.config.loss_chunk)
        if self.training and self._watches:
            self._losses.append(loss.detach())
        if self.bytes_per_token is None:
            return {"loss": loss}
        return {"loss": loss, "bits_per_byte": loss.detach() / (math.log(2) * self.bytes_per_token)}

    @property
    def _watches(self) -> bool:
        return bool(self.config.watch_every) and self.unigram_entropy is not None

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Nothing is due before a step."""
        self._losses.clear()

    def before_update(self, step: int) -> Mapping[str, Tensor]:
        """Nothing is done to the gradients."""
        return {}

    @torch.no_grad()
    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """Note the loss of a step, and every `watch_every` steps compare their mean to the unigram entropy.

        Returns:
            The comparison as JSON, with `fault` and `remedy` if the model is stuck; None at other steps.
        """
        if not self._watches or not self._losses:
            return None
        mean = torch.stack(self._losses).float().mean()
        if dist.is_available() and dist.is_initialized():  # every process then holds the same
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.watched += torch.stack([mean, torch.ones_like(mean)]).to(self.watched)
        if (step + 1) % self.config.watch_every:
            return None
        total, count = self.watched.tolist()
        self.watched.zero_()
        return self._look(total / count, step)

    def _look(self, loss: float, step: int) -> Mapping[str, Any]:
        entropy = float(self.unigram_entropy or 0.0)
        found = {"loss": loss if math.isfinite(loss) else None, "unigram_entropy": entropy}
        judged = step + 1 >= self.warmup + self.config.watch_after
        if not judged or loss < self.config.stuck_share * entropy:
            return found
        fault = (
            f"the mean loss of {self.config.watch_every} steps, {loss:.4g} nats, is that of a model that knows only "
            f"how frequent each token is ({entropy:.4g} nats)"
        )
        stop = {"stop": fault} if self.config.on_stuck == "stop" else {}
        return {**found, "fault": fault, "fault_kind": "stuck", "remedy": REMEDY, **stop}


def chunked_cross_entropy(
    logits: Float[Tensor, "b t v"], targets: Int64[Tensor, "b t"], chunk: int
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy in nats over targets that are not `IGNORE`; fp32, some tokens at a time.

    Args:
        logits: of any floating-point dtype; double precision stays.
        targets: ids.
        chunk: tokens at a time. Their softmax is computed again in the backward pass.

    Example:
        >>> chunked_cross_entropy(torch.zeros(1, 4, 2), torch.tensor([[0, 1, -100, 1]]), chunk=2)
        tensor(0.6931)
    """
    rows, wanted = logits.flatten(0, 1), targets.flatten()
    count = (wanted != IGNORE).sum()
    if len(rows) <= chunk:
        return _summed(rows, wanted) / count
    parts = zip(rows.split(chunk), wanted.split(chunk), strict=True)
    sums = [checkpoint(_summed, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum() / count  # pyright: ignore[reportArgumentType]


def _summed(logits: Float[Tensor, "n v"], targets: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(precise, targets, ignore_index=IGNORE, reduction="sum")
