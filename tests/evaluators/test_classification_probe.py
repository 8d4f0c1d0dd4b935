"""Classification heads beside torch's own, and pooled features."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference.scenes import Squares
from torch import nn

from skipless.errors import InputError
from skipless.evaluators.classification.linear_classification import ClassificationProtocol, linear_classification_probe
from skipless.evaluators.features.extraction import ImageTransform
from skipless.evaluators.features.store_builder import build_store
from skipless.evaluators.probe.heads import HeadOptimizer
from skipless.models import create_model

RATES = (1e-3, 0.1)
PROTOCOL = ClassificationProtocol(HeadOptimizer(RATES, "sgd", schedule="cosine"), batch_size=64, epochs=20)


def clouds(n: int, seed: int) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Six classes around their centres: block 0 blurred, block 1 clear, block 2 of another width."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (n,), generator=generator)
    centres = torch.eye(6, 10).double()
    x = [centres[labels] + noise * torch.randn(n, 10, generator=generator).double() for noise in (1.0, 0.2)]
    return {0: x[0], 1: x[1], 2: torch.cat([x[1], x[0]], 1)}, labels


def test_every_head_is_torchs_full_batch_head() -> None:
    (x, labels), (y, truth) = clouds(60, 0), clouds(90, 1)
    result = linear_classification_probe(x, labels, y, truth, classes=6, protocol=PROTOCOL)
    for score in result.blocks:
        for rate in score.rates:
            head = nn.Linear(x[score.block].shape[1], 6).double()
            nn.init.zeros_(head.bias)
            generator = torch.Generator().manual_seed(0)
            start = torch.randn(head.in_features, 6, generator=generator, dtype=torch.float64)
            head.weight.data = 0.01 * start.T
            optimizer = torch.optim.SGD(head.parameters(), lr=rate.learning_rate, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
            for _ in range(20):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(x[score.block]), labels).backward()
                optimizer.step()
                schedule.step()
            scores = head(y[score.block])
            top1 = 100 * (scores.argmax(1) == truth).double().mean().item()
            assert rate.chosen_top1 == pytest.approx(top1)
            if rate.learning_rate == score.learning_rate:
                top5 = (scores.topk(5).indices == truth[:, None]).any(1).double().mean().item()
                assert score.top1 == pytest.approx(top1)
                assert score.top5 == pytest.approx(100 * top5)
    assert result.blocks[1].top1 is not None
    assert result.blocks[0].top1 is not None
    assert result.blocks[1].top1 > result.blocks[0].top1 + 10
    json.dumps(result.record(), allow_nan=False)


def test_a_holdout_is_not_trained_on_and_the_seed_decides_it() -> None:
    (x, labels), (y, truth) = clouds(60, 0), clouds(90, 1)
    arguments = {"classes": 6, "protocol": PROTOCOL, "select": "holdout", "holdout": 0.25}
    result = linear_classification_probe(x, labels, y, truth, **arguments, seed=1)
    assert (result.train, result.chosen_on, result.test) == (45, 15, 90)
    assert result == linear_classification_probe(x, labels, y, truth, **arguments, seed=1)
    assert result != linear_classification_probe(x, labels, y, truth, **arguments, seed=2)


def test_heads_that_diverge_or_say_nothing_are_no_success() -> None:
    (x, labels), (y, truth) = clouds(60, 0), clouds(90, 1)
    wild = replace(PROTOCOL, optimizer=HeadOptimizer((1e308,), "sgd"))
    (score, *_) = linear_classification_probe(x, labels, y, truth, classes=6, protocol=wild).blocks
    assert (score.learning_rate, score.top1, score.rates[0].finite) == (None, None, False)
    flat = {0: torch.zeros(60, 4)}
    blank = linear_classification_probe(flat, labels, {0: torch.zeros(90, 4)}, truth, classes=6, protocol=PROTOCOL)
    assert blank.blocks[0].top1 is not None
    assert blank.blocks[0].top1 < 30


def test_bad_requests_are_one_line(unchecked: None) -> None:
    (x, labels), _ = clouds(20, 0), None
    for words, call in (
        ("test features of blocks", lambda: linear_classification_probe(x, labels, {0: x[0]}, labels, classes=6)),
        ("labels go from", lambda: linear_classification_probe(x, labels, x, labels, classes=3)),
        ("19 labels", lambda: linear_classification_probe(x, labels[1:], x, labels, classes=6)),
        ("choose from val", lambda: linear_classification_probe(x, labels, x, labels, classes=6, select="train")),
        ("not finite", lambda: linear_classification_probe({0: x[0] / 0}, labels, {0: x[0]}, labels, classes=6)),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_pooled_features_are_the_class_token_or_the_mean_of_patches(tmp_path: Path) -> None:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    for kwargs, kinds in (({"reg_tokens": 2}, ("class", "mean")), ({"class_token": False, "reg_tokens": 2}, ("mean",))):
        if not kwargs.get("class_token", True):
            kwargs["global_pool"] = "avg"
        model = create_model("vit_tiny_patch16_224", skip=True, seed=0, **sizes, **kwargs)
        data = Squares(3)
        transform = ImageTransform.of(model, 32)
        store = build_store(
            model, lambda i, data=data: data.load(i)[0], 3, data="a", transform=transform, folder=tmp_path,
            notify=lambda _: None,
        )  # fmt: skip
        read = store.read(0, "tokens", [2, 0])
        expected = {"class": read.prefix[:, 0], "mean": read.patches.mean(1)}
        for kind in kinds:
            assert torch.allclose(store.pooled(0, "tokens", [2, 0], kind), expected[kind])
        if "class" not in kinds:
            with pytest.raises(InputError, match="has no class token; give 'mean'"):
                store.pooled(0, "tokens", [0])
