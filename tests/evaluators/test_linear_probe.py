"""Heads trained together beside torch's own, one at a time; mIoU beside loops; the probe from pictures to numbers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.probe import miou, train_head
from reference.scenes import Squares
from torch.nn.functional import interpolate

from skipless.errors import InputError
from skipless.evaluators.features.extraction import FeatureConfig
from skipless.evaluators.probe.dense_set import DenseSet
from skipless.evaluators.probe.heads import HeadOptimizer, LinearHeads, train_step_
from skipless.evaluators.probe.linear_probe import linear_probe
from skipless.evaluators.probe.pipeline import probe_model
from skipless.evaluators.probe.protocols import PROTOCOLS, DenseProtocol, protocol_named
from skipless.evaluators.probe.segmentation_metrics import (
    cell_distribution,
    confusion_matrix,
    resample,
    resize_labels,
    segmentation_scores,
)
from skipless.models import create_model

RATES = (1e-3, 1e-2, 0.3)


def vit(depth: int = 2):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": depth, "num_heads": 2}
    return create_model("vit_tiny_patch16_224", skip=True, seed=0, **sizes)


def masks(*shape: int, classes: int, seed: int = 0, ignore: int = 255) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, classes, shape, generator=generator)
    return drawn.masked_fill(torch.rand(shape, generator=generator) < 0.2, ignore)


# Heads


@pytest.mark.parametrize("loss_size", [None, 10])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("name", "weight_decay", "schedule"),
    [("adamw", 0.0, "cosine"), ("adamw", 0.1, "linear"), ("sgd", 0.01, "constant")],
)
def test_heads_trained_together_are_those_trained_alone_by_torch(
    loss_size: int | None, batch_norm: bool, name, weight_decay: float, schedule
) -> None:
    classes, dim, grid, steps = 5, 7, (3, 4), 12
    optimizer = HeadOptimizer(RATES, name, weight_decay=weight_decay, schedule=schedule, batch_norm=batch_norm)
    heads = LinearHeads(dim, classes, optimizer, seed=3, dtype=torch.float64)
    start = heads.parameters["weight"][..., 0].clone()
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2 + step % 3, dim, *grid, generator=generator).double() + 0.5 for step in range(steps)]
    size = (12, 16) if loss_size is None else (loss_size, loss_size)
    targets = [masks(len(x), *size, classes=classes, seed=step) for step, x in enumerate(maps)]
    for step, (x, mask) in enumerate(zip(maps, targets, strict=True)):
        cells = grid if loss_size is None else size
        target = cell_distribution(mask, cells, classes, 255).double()
        resize = None if loss_size is None else (grid, size)
        train_step_(heads, x.flatten(2).mT, target, step, steps, resize=resize)
    for i, rate in enumerate(RATES):
        alone = train_head(
            list(zip(maps, targets, strict=True)),
            learning_rate=rate,
            weight=start,
            optimizer=name,
            weight_decay=weight_decay,
            batch_norm=batch_norm,
            schedule=schedule,
            ignore=255,
            loss_size=loss_size,
        )
        weight, bias = heads.folded(i)
        with torch.no_grad():
            expected = alone(maps[0]).flatten(2).mT
        assert torch.allclose(maps[0].flatten(2).mT @ weight + bias, expected, rtol=1e-7, atol=1e-9)
        assert (weight - start).abs().max() > 1e-4


def test_one_rates_head_does_not_depend_on_the_others_not_even_if_they_diverge() -> None:
    def trained(rates: tuple[float, ...]) -> LinearHeads:
        heads = LinearHeads(6, 4, HeadOptimizer(rates, "sgd"), seed=0)
        for step in range(30):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(2, 9, 6, generator=generator) * 1e3
            target = torch.rand(2, 9, 4, generator=generator)
            train_step_(heads, x, target / target.sum(-1, keepdim=True), step, 30)
        return heads

    alone, together = trained((1e-6,)), trained((1e38, 1e-6, 1.0))
    assert together.finite == (False, True, True)
    assert torch.allclose(alone.folded(0)[0], together.folded(1)[0], rtol=1e-4, atol=1e-7)


def test_a_batch_of_nothing_but_ignored_pixels_is_no_step() -> None:
    heads = LinearHeads(3, 2, HeadOptimizer(RATES), seed=0)
    before = {name: p.clone() for name, p in heads.parameters.items()}
    assert train_step_(heads, torch.randn(1, 4, 3), torch.zeros(1, 4, 2), 0, 1, with_loss=True) is None
    assert all(torch.equal(p, before[name]) for name, p in heads.parameters.items())


def test_the_loss_is_the_mean_over_pixels_that_count() -> None:
    heads = LinearHeads(3, 4, HeadOptimizer(RATES), seed=0)
    x, mask = torch.randn(2, 4, 3), masks(2, 8, 8, classes=4)
    logits = heads.logits(x.flatten(0, 1)).view(2, 2, 2, 4, 3)
    loss = train_step_(heads, x, cell_distribution(mask, (2, 2), 4, 255), 0, 1, with_loss=True)
    for i in range(3):
        pixels = interpolate(logits[..., i].permute(0, 3, 1, 2), size=8, mode="nearest")
        expected = torch.nn.functional.cross_entropy(pixels, mask, ignore_index=255)
        assert loss is not None
        assert loss[i].item() == pytest.approx(expected.item(), rel=1e-5)


def test_schedules_rise_and_fall() -> None:
    optimizer = HeadOptimizer((1.0,), schedule="linear", warmup=0.25)
    assert [optimizer.factor(step, 8) for step in range(8)] == pytest.approx(
        [0.5, 1, 1, 5 / 6, 4 / 6, 0.5, 2 / 6, 1 / 6]
    )
    with pytest.raises(InputError, match="each once"):
        HeadOptimizer((1.0, 1.0))
    with pytest.raises(InputError, match="positive"):
        HeadOptimizer((0.0,))
    with pytest.raises(InputError, match="share of the steps"):
        HeadOptimizer((1.0,), warmup=1.0)


# Scores


@pytest.mark.parametrize("seed", range(50))
def test_scores_are_those_of_a_loop_over_pixels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    classes, ignore = int(generator.integers(4, 9)), [255, 0, -1][seed % 3]
    true = [masks(3 + i, 5, classes=max(1, classes - 2), seed=seed + i, ignore=ignore) for i in range(3)]
    found = [masks(3 + i, 5, classes=classes - 1, seed=seed + 9 + i, ignore=0) for i in range(3)]
    total = sum(confusion_matrix(p, t, classes, ignore) for p, t in zip(found, true, strict=True))
    assert isinstance(total, torch.Tensor)
    scores = segmentation_scores(total)
    iou, mean = miou(found, true, classes, ignore)
    assert scores.iou == pytest.approx(iou)
    assert scores.miou == pytest.approx(mean)
    counted = torch.cat([(t != ignore).flatten() for t in true])
    right = torch.cat([(p == t).flatten() for p, t in zip(found, true, strict=True)])
    assert scores.pixel_accuracy == pytest.approx(100 * right[counted].double().mean().item())
    assert scores.iou[classes - 1] is None  # it occurs nowhere
    assert scores.pixels == counted.sum()


def test_nothing_to_count_is_none_and_labels_beyond_the_classes_are_named() -> None:
    nothing = segmentation_scores(torch.zeros(3, 3, dtype=torch.int64))
    assert (nothing.miou, nothing.pixel_accuracy, nothing.iou) == (None, None, (None, None, None))
    with pytest.raises(InputError, match="label 7 is none of the classes 0 to 2 or 255, which is ignored"):
        confusion_matrix(torch.zeros(2).long(), torch.tensor([255, 7]), 3, 255)
    with pytest.raises(InputError, match="label 255 is none of the classes 0 to 2: the masks"):
        confusion_matrix(torch.zeros(2).long(), torch.tensor([255, 1]), 3, None)


@pytest.mark.parametrize(
    ("grid", "size"), [((3, 5), (7, 20)), ((14, 14), (224, 150)), ((6, 6), (4, 3)), ((1, 2), (1, 9))]
)
def test_resampling_is_torchs_bilinear_and_its_transpose_the_gradient(grid, size) -> None:
    x = torch.randn(2, 4, *grid, dtype=torch.float64, requires_grad=True)
    expected = interpolate(x, size=size, mode="bilinear", align_corners=False)
    found = resample(x.detach().flatten(2).mT, grid, size)
    assert torch.allclose(found.mT.view_as(expected), expected)
    g = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, x, g)
    assert torch.allclose(resample(g.flatten(2).mT, grid, size, transpose=True), gradient.flatten(2).mT)


def test_cells_hold_shares_and_masks_keep_their_labels() -> None:
    mask = torch.tensor([[0, 0, 1, 255], [0, 2, 255, 255]])[None]
    shares = cell_distribution(mask, (1, 2), 3, 255)
    assert shares.tolist() == [[[0.75, 0, 0.25], [0, 0.25, 0]]]
    grown = resize_labels(mask[0], (4, 8))
    assert torch.equal(grown[::2, ::2], mask[0])
    assert torch.equal(resize_labels(grown, (2, 4)), mask[0])


# The probe

TINY = DenseProtocol(
    "tiny", HeadOptimizer(RATES), image_size=48, batch_size=5, epochs=4, pixels_per_cell=4, choose_at="patch"
)


def probe(folder: Path, *, train: Squares | None = None, val: Squares | None = None, depth: int = 2, **kwargs):
    arguments = {"protocol": TINY, "multiscale": None, "notify": lambda _: None} | kwargs
    train, val = train or Squares(14), val or Squares(6, seed=1)
    return probe_model(vit(depth), train, val, folder=folder, identity=("train", "val"), **arguments)


@pytest.mark.parametrize("protocol", ["tiny", "paper", "dinov2", "patch"])
def test_every_block_and_rate_is_what_it_is_alone(tmp_path: Path, protocol: str) -> None:
    chosen = TINY if protocol == "tiny" else PROTOCOLS[protocol]
    chosen = replace(chosen, image_size=48, batch_size=5, loss_size=chosen.loss_size and 20)
    chosen = replace(chosen, patches_per_image=chosen.patches_per_image and 9)
    chosen = replace(chosen, epochs=2, iterations=None, optimizer=replace(chosen.optimizer, learning_rates=RATES))
    together, _ = probe(tmp_path, protocol=chosen, multiscale=(0, 1))
    assert [score.blocks for score in together.result.blocks] == [(0,), (1,), (0, 1)]
    for block, rate in ((0, 0), (1, 2)):
        single = replace(chosen, optimizer=replace(chosen.optimizer, learning_rates=(RATES[rate],)))
        alone, _ = probe(tmp_path, protocol=single, config=FeatureConfig(blocks=(block,)))
        (score,) = alone.result.blocks
        beside = together.result.blocks[block]
        assert score.rates[0].miou == pytest.approx(beside.rates[rate].miou, abs=0.05)
        assert score.rates[0].train_loss == pytest.approx(beside.rates[rate].train_loss, rel=1e-4)
        if beside.learning_rate == RATES[rate]:
            assert torch.allclose(alone.heads[block,][0], together.heads[block,][0], rtol=1e-3, atol=1e-5)
    record = json.loads(json.dumps(together.result.record()))
    assert record["protocol"]["optimizer"]["learning_rates"] == list(RATES)


def test_scores_are_those_of_the_predictions_at_the_masks_size(tmp_path: Path) -> None:
    trained, val = probe(tmp_path, multiscale=(1, 0), protocol=replace(TINY, epochs=30))
    for score in trained.result.blocks:
        pairs = [(trained.predict(val, i, score.blocks, (40, 48)), val.mask(i)) for i in range(6)]
        iou, mean = miou([p for p, _ in pairs], [m for _, m in pairs if m is not None], 3, 255)
        assert score.miou == pytest.approx(mean)
        assert score.scores is not None
        assert score.scores.iou == pytest.approx(iou)
        assert score.scores.pixels == 6 * 39 * 48
        assert mean > 50
        best = max(score.rates, key=lambda rate: rate.miou or 0)
        assert score.learning_rate == best.learning_rate
        assert score.at_edge == (best.learning_rate != RATES[1])
    assert trained.result.best.miou == max(score.miou or 0 for score in trained.result.blocks)
    assert "0+1" in str(trained.result) or "1+0" in str(trained.result)


def test_rates_compared_at_pixels_are_judged_as_they_are_reported(tmp_path: Path) -> None:
    trained, _ = probe(tmp_path, protocol=replace(TINY, choose_at="pixel"))
    for score in trained.result.blocks:
        assert score.miou == pytest.approx(max(rate.miou or 0 for rate in score.rates))


def test_the_seed_decides_all_and_the_folder_nothing(tmp_path: Path) -> None:
    patches = replace(TINY, patches_per_image=9)
    first, _ = probe(tmp_path / "a", protocol=patches, seed=1)
    again, _ = probe(tmp_path / "b", protocol=patches, seed=1)
    other, _ = probe(tmp_path / "a", protocol=patches, seed=2)
    assert first.result == again.result
    assert torch.equal(first.heads[1,][0], again.heads[1,][0])
    assert not torch.equal(first.heads[1,][0], other.heads[1,][0])


def test_a_holdout_is_not_trained_on(tmp_path: Path) -> None:
    trained, _ = probe(tmp_path, select="holdout", seed=3)
    assert (trained.result.train, trained.result.chosen_on, trained.result.val) == (11, 3, 6)
    assert "chosen on 3 held-out training images" in str(trained.result)
    assert trained.result.steps == 4 * 3


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    trained, _ = probe(tmp_path, train=Squares(14, broken=(2, 9)), val=Squares(6, seed=1, broken=(0,)))
    assert (trained.result.train, trained.result.val) == (12, 5)
    assert [(s.split, s.index) for s in trained.result.skipped] == [("train", 2), ("train", 9), ("val", 0)]
    assert "3 images were left out; the first: 'image-2.png' is cut short" in str(trained.result)


class WrongLabels(Squares):
    """Masks of more classes than the list has."""

    def load(self, index: int):
        image, mask = super().load(index)
        return image, np.where(mask == 2, 9, mask)


def test_classes_that_do_not_match_are_an_error_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"train: 8 of 14 images cannot be used.*label 9 is none of the classes 0 to 2"
    ):
        probe(tmp_path, train=WrongLabels(14))
    other = Squares(6)
    other.classes = ("ground", "thing")
    with pytest.raises(InputError, match="train has 3 classes, val 2 others"):
        probe(tmp_path, val=other)


def test_a_rate_that_diverges_is_never_chosen(tmp_path: Path) -> None:
    wild = replace(TINY, optimizer=HeadOptimizer((1e38, 1e-2), "sgd"))
    trained, _ = probe(tmp_path, protocol=wild)
    for score in trained.result.blocks:
        assert [rate.finite for rate in score.rates] == [False, True]
        assert score.rates[0].miou is None
        assert score.learning_rate == 1e-2
    hopeless = replace(TINY, optimizer=HeadOptimizer((1e38,), "sgd"))
    trained, _ = probe(tmp_path, protocol=hopeless)
    assert all(score.scores is None and score.miou is None for score in trained.result.blocks)
    assert "every head diverged" in str(trained.result)
    json.dumps(trained.result.record(), allow_nan=False)


def test_bad_requests_are_one_line(tmp_path: Path, unchecked: None) -> None:
    _, val = probe(tmp_path)
    for words, call in (
        (r"no probing protocol 'papers'; did you mean paper\? there are", lambda: protocol_named("papers")),
        ("name each set of blocks once", lambda: linear_probe(val, val, protocol=TINY, sets=[])),
        ("choose from val, holdout", lambda: linear_probe(val, val, protocol=TINY, sets=[(0,)], select="test")),
        ("leaves none of", lambda: linear_probe(val, val, protocol=TINY, sets=[(0,)], select="holdout", holdout=0.99)),
        ("takes one kind", lambda: probe(tmp_path, config=FeatureConfig(kinds=("q", "k")))),
        ("features of 6 images, masks of 5", lambda: DenseSet(val.store, Squares(5), "val")),
        (
            r"no features \(block, kind\) \[\(0, .q.\)\]",
            lambda: linear_probe(val, val, protocol=TINY, sets=[(0,)], kind="q"),
        ),
        ("give one of them", lambda: replace(TINY, iterations=3)),
        ("needs loss_size=None", lambda: replace(TINY, loss_size=10, patches_per_image=3)),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_two_processes_share_the_work_and_both_have_the_whole(tmp_path: Path) -> None:
    """Under torchrun: shards and sets of blocks are shared out, and the numbers are those of one process."""
    script = """
import json, sys
from pathlib import Path
import torch, torch.distributed as dist
sys.path.insert(0, sys.argv[2])
from reference.scenes import Squares
from skipless.evaluators.probe.pipeline import probe_model
from skipless.models import create_model
torch.set_num_threads(1)
if sys.argv[3] == "2":
    dist.init_process_group("gloo")
model = create_model("vit_tiny_patch16_224", skip=True, seed=0, img_size=32, patch_size=8, embed_dim=24, depth=3,
                     num_heads=2)
from dataclasses import replace
from skipless.evaluators.probe.protocols import PROTOCOLS
protocol = replace(PROTOCOLS["patch"], image_size=48, epochs=2)
probe, val = probe_model(model, Squares(70), Squares(6, seed=1), folder=Path(sys.argv[1]), identity=("train", "val"),
                         protocol=protocol, multiscale=(0, 1))
rank = dist.get_rank() if dist.is_initialized() else 0
assert sorted(probe.heads) == [(0,), (0, 1), (1,), (2,)]
Path(sys.argv[1], f"result-{rank}.json").write_text(json.dumps(probe.result.record()["blocks"]))
if dist.is_initialized():
    dist.destroy_process_group()
"""
    file = tmp_path / "script.py"
    file.write_text(script)
    root = str(Path(__file__).parents[1])
    for name, launcher in (("1", []), ("2", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"])):
        command = [sys.executable, *launcher, str(file), str(tmp_path / name), root, name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
    alone = json.loads((tmp_path / "1" / "result-0.json").read_text())
    for rank in (0, 1):
        assert json.loads((tmp_path / "2" / f"result-{rank}.json").read_text()) == alone
