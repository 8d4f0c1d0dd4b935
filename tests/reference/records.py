"""One of each result that the library gives, small, with names that HTML would misread."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from reference.run_folders import write_run
from reference.sine import adapted

from skipless import adapters, conditioning, data, evaluators, models, planning, studies
from skipless.conditioning.measurement.network_jacobian import Rows
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.data.dense import BoxData, ObjectBoxes, SegmentationData
from skipless.data.multicrop import Deviation, MultiCropImages
from skipless.data.scenes import compose, load_sources
from skipless.data.scenes.write import WrittenScenes
from skipless.data.shards.find import Shards
from skipless.data.shards.shard_files import ShardFiles
from skipless.data.shards.write import ShardsWritten
from skipless.data.text import TextConfig, TextWindows, load_text
from skipless.display import Record
from skipless.evaluators.classification.linear_classification import ClassificationRate, ClassificationScore
from skipless.evaluators.features.store import FeatureStore
from skipless.evaluators.probe.dense_set import Skipped
from skipless.experiments.language.recipe import language
from skipless.init import CorrelationMap
from skipless.optim import WarmupCosine
from skipless.optim.config import OptimizerConfig
from skipless.planning.bottlenecks import RunProfile, Seconds
from skipless.planning.table import PlanRow
from skipless.recipes import Exported, LanguageRecipe, ModelConfig, ModelSource, ScheduleConfig, dino, table1
from skipless.report.condition_number import ConditionNumber
from skipless.report.run_records import read_run
from skipless.sweep import Call, Job
from skipless.tasks import LanguageConfig, LanguageModel
from skipless.tasks.dino.collapse import CollapseReport
from skipless.tasks.dino.config import DINOSchedules
from skipless.training import FitConfig, FitResult

NAME = '<b>"A" & B</b>'  # what a user may call a model, a class or a folder


@cache
def samples() -> dict[str, Record]:
    """One of each, by the name of its class."""
    makers = (
        _of_text,
        _of_models,
        _of_adapters,
        _of_conditioning,
        _of_theory,
        _of_evaluators,
        _of_studies,
        _of_planning,
        _of_runs,
        _of_data,
    )
    found: list[Any] = [record for make in makers for record in make()]
    return {type(record).__name__: record for record in found}


def _tiny(**options: Any) -> Any:
    sizes = {"depth": 2, "img_size": 32, "embed_dim": 24, "num_heads": 2, "seed": 0}
    return models.create_model("vit_tiny_patch16_224", **{**sizes, **options})


def _images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _of_models() -> list[Any]:
    report = models.inspect_init(_tiny())
    view = models.block_views(_tiny())[0]
    named = replace(report.blocks[0], name=NAME, flags=(f"{NAME} departs",))
    tokens = models.inspect_tokens(_tiny(), _images())
    block = replace(tokens.blocks[0], name=NAME)
    vit = _tiny()
    gradients = models.token_gradients(vit, lambda batch: vit(batch).square().mean(), _images())
    of_block = replace(gradients.blocks[0], name=NAME)
    return [
        *(named, replace(report, blocks=(named, *report.blocks[1:])), replace(view, name=NAME), view.query),
        *(block, replace(tokens, blocks=(block, *tokens.blocks[1:]))),
        *(of_block, replace(gradients, blocks=(of_block, *gradients.blocks[1:]))),
    ]


def _of_adapters() -> list[Any]:
    report = adapters.sine_report(adapted())
    named = replace(report.layers[0], name=NAME)
    return [named, replace(report, adapter=NAME, layers=(named, *report.layers[1:]))]


def _of_conditioning() -> list[Any]:
    report = conditioning.measure_conditioning(_tiny(), _images(), network=Rows(1, 2, 4))
    named = replace(report.blocks[0], name=NAME)
    report = replace(report, blocks=(named, *report.blocks[1:]))
    assumed = conditioning.check_assumptions(_tiny(), _images(), Rows(2, 2, 4))
    view = models.block_views(_tiny())[0]
    family = conditioning.compare_attention(_tiny(), {}, torch.randn(1, 3, view.dim))
    family = replace(family, cores=(replace(family.cores[0], name=NAME),))
    bound = conditioning.parameter_bound(view, torch.randn(4, view.dim))
    operator = LinearOperator.from_dense(torch.diag(torch.linspace(0.0, 3.0, 20)), NAME)
    spectrum = conditioning.spectrum(operator)
    assert report.network is not None
    assert named.heads is not None
    assert named.paper is not None
    return [
        *(report, named, named.paper, named.heads[0], named.tokens[0], report.network, report.network.rows),
        *(family, family.cores[0], bound),
        *(assumed, operator, spectrum, spectrum.kappa, conditioning.spectral_density(operator)),
    ]


def _of_theory() -> list[Any]:
    terms = conditioning.perturbation_ratio(_tiny(num_heads=1).blocks[0], torch.randn(5, 24))
    cosines = conditioning.predict_token_cosine(_tiny(), _images())
    return [
        *(replace(cosines, blocks=(NAME, *cosines.blocks[1:])), CorrelationMap.of(torch.nn.GELU())),
        replace(terms, name=NAME),
        conditioning.concatenation_bound([torch.eye(4, 2).double(), torch.ones(4, 2).double()]),
        conditioning.logit_moments(384, 1.0, 1.0),
        conditioning.gap_moments(384, 1.0, 1.0),
        conditioning.diffuse_bound(197, 0.1),
    ]


def _of_evaluators() -> list[Any]:
    tokens = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    made = evaluators.features(_tiny(), _images())[1, "tokens"]
    score = evaluators.KnnAccuracy(90.0, 99.0, k=10, temperature=0.07, n=400, n_train=1397)
    probe = _classification()
    probed = _probe()
    found = evaluators.tokencut(
        torch.rand(1, 16, 8, generator=torch.Generator().manual_seed(0)), (4, 4), image_size=(64, 64)
    )[0]
    hits = evaluators.corloc([(0, 0, 2, 2), (0, 0, 9, 9)], [[(0, 0, 2, 2)], [(0, 0, 2, 2)]])
    store = FeatureStore(Path(NAME), ((1, "k"),), "final", 1, True, {(1, "k"): 8}, ((4, 4),) * 3, {2: NAME}, 999)
    return [
        *_of_bits(),
        *(made, score, probe, probe.blocks[0], probe.blocks[0].rates[0], found, hits, store),
        *(probed, probed.blocks[0], probed.blocks[0].rates[0], probed.blocks[0].scores),
        evaluators.TrainedProbe(probed, {(0,): (tokens, tokens[0])}, "tokens"),
        evaluators.pca_colours([tokens, tokens], [(2, 3), (3, 2)]),
    ]


def _of_bits() -> list[Any]:
    found = evaluators.activation_statistics(_tiny(), [_images()], bits=(8,))
    first = found.sites[0].block
    sites = tuple(replace(one, block=NAME) if one.block == first else one for one in found.sites)
    budget = replace(found.budget[0], block=NAME)
    whole = replace(found, sites=sites, budget=(budget, *found.budget[1:]))
    return [sites[0], sites[0].moments, budget, whole]


def _classification() -> Any:
    labels = torch.arange(60) % 3
    blocks = {0: torch.eye(3)[labels], 1: torch.ones(60, 3)}
    result = evaluators.linear_classification_probe(blocks, labels, blocks, labels, classes=3)
    lost = ClassificationScore(2, None, None, None, (ClassificationRate(1e3, None, False),))
    return replace(result, blocks=(*result.blocks, lost))


def _probe() -> evaluators.ProbeResult:
    scores = evaluators.SegmentationScores(50.0, (40.0, 60.0, None), 70.0, 2, 12345)
    rates = tuple(evaluators.RateScore(rate, 45.0, 0.5, True) for rate in (1e-3, 1e-2))
    blocks = (
        evaluators.BlockScore((0,), 1e-2, True, scores, rates),
        evaluators.BlockScore((0, 1), None, False, None, (evaluators.RateScore(1.0, None, None, False),)),
    )
    protocol = evaluators.protocol_named("paper")
    skipped = (Skipped("train", 3, NAME),)
    names = (NAME, "dog", "cat")
    return evaluators.ProbeResult(protocol, "val", "tokens", "final", names, (4, 4), blocks, 9, 5, 5, 7, 0, skipped)


def _of_text() -> list[Any]:
    text = load_text(TextConfig("pydoc"), cache=Path(mkdtemp()))
    task = LanguageModel(torch.nn.Embedding(257, 257))
    score = evaluators.score_text(task.model, text.val, context=64, most=1000)
    floors, sample = (
        evaluators.text_floors(text.train, text.val, vocabulary=257),
        evaluators.TextSample(NAME, NAME, (1, 2), 1.0, 0),
    )
    answered = evaluators.TaskScore(NAME, NAME, 40.0, 2.0, 41.0, 2.0, 500, 50.0, 62.2, 0.5, "1.0")
    scores = evaluators.TaskScores((answered, answered), 128, True, "0.4.13", None, {NAME: {NAME: 57.3}})
    return [
        *(replace(text, source=NAME, empty=1), text.val, TextWindows(text.train, 64), score),
        *(floors, sample, answered, scores),
        studies.HeldOutResult(NAME, NAME, studies.HeldOutConfig(), score, floors, sample, NAME),
        studies.ZeroShotResult(NAME, studies.ZeroShotConfig(), scores, NAME),
        LanguageRecipe(
            name=NAME, scale="toy", model=ModelConfig(NAME), data=TextConfig(NAME), optimizer=OptimizerConfig(),
            schedule=ScheduleConfig(), fit=FitConfig(), objective=LanguageConfig(),
        ),
    ]  # fmt: skip


def _of_studies() -> list[Any]:
    labels = torch.arange(6) % 3
    vectors = {0: torch.rand(6, 4), 1: torch.rand(6, 4)}
    pooled = studies.PooledData(vectors, labels, vectors, labels, 3, "class", {"image 3": NAME}, "pooled")
    score = evaluators.KnnAccuracy(90.0, 99.0, k=10, temperature=0.07, n=400, n_train=1397)
    by_k = {10: score, 20: replace(score, k=20, top1=80.0)}
    hits = evaluators.corloc([(0, 0, 2, 2)], [[(0, 0, 2, 2)]])
    corlocs = {(block, kind): hits for block in (0, 1) for kind in ("q", "k")}
    probed = _probe()
    assert probed.blocks[0].scores is not None
    wanted = studies.DiscoveryConfig(kinds=("q", "k"))
    _, _, _, activations = _of_bits()
    metric, scores = studies.Metric("top-1, %", True, (NAME, 10.0)), {"unquantised": 90.0, "W8A8": 89.0}
    return [
        pooled,
        studies.QuantisationResult(
            NAME, NAME, studies.QuantisationConfig(), metric, scores, 400, activations, probe=scores
        ),
        studies.NeighbourResult(NAME, NAME, studies.NeighbourConfig(), {0: by_k, 1: by_k}, pooled),
        studies.ClassifierResult(NAME, NAME, studies.ClassifierConfig(), _classification(), pooled),
        studies.DiscoveryResult(NAME, NAME, wanted, corlocs, (1, "k"), (1, "k"), hits, 1, 0, {"x": NAME}),
        studies.SegmentationResult(NAME, NAME, probed, probed.blocks[0].scores),
        studies.Top1Result(NAME, NAME, {"top1": 90.0, "top5": 99.0, "loss": 0.3, "n": 400.0}, 10.0),
    ]


def _of_planning() -> list[Any]:
    work = planning.workload(table1("paper", "skipless", "soap", data="-"))
    setup = planning.Setup(planning.find_gpu("h100"), devices=8)
    found = planning.plan(work, setup)
    once = Seconds(0.1, 0.09, 0.12, 5)
    profile = RunProfile(
        device="cuda", cores=16, workers=8, batch_size=100, precision="bf16", optimizer_name="SOAP", loader=2000.0,
        between=once, passes=once, update=once, refresh=once, refresh_every=10, evaluation=2.0, checkpoint=0.5,
        steps_per_epoch=1000, evaluate_every=1, checkpoint_every=1000,
    )  # fmt: skip
    row = PlanRow(NAME, "soap", work, setup, found, found, replace(found, fits=False))
    text = planning.text_workload(language("paper", data="-"))
    return [work, text, setup, setup.gpu, found, found.memory, found.time, profile, once, row]


def _of_runs() -> list[Any]:
    folder = write_run(Path(mkdtemp()) / NAME.replace("/", ""))
    recipe, cosine = table1("digits"), WarmupCosine(1.0, 70, warmup_steps=3)
    return [
        read_run(folder),
        FitResult(300, 30.0, 48.5, {NAME: 90.0, "loss": 0.5}, folder=folder),
        Exported(Path(f"{NAME}.safetensors"), "skipless_vit_tiny_patch16_224", {"img_size": 32}),
        ModelSource(NAME, _tiny(), trained=False, recipe=recipe),
        ConditionNumber(3e9, True, rank=7, size=9),
        Job((NAME, "SOAP", "0"), recipe, folder, 300, latest={"top1": 9.0}),
        Call((NAME,), print, (), error=NAME),
        *(recipe.with_(name=NAME), dino("vit_small", data="-"), cosine, DINOSchedules(cosine, cosine, cosine, 10)),
        CollapseReport(2.0, 0.08, 1.0, (3.0, 2.5, 2.0), (0.5, 0.4, 0.3), {}, n=8),
    ]


def _of_data() -> list[Any]:
    digits = data.load_images(data.ImageConfig(data="digits"))
    sources = load_sources("digits")[0]
    boxes = ObjectBoxes(np.array([[0, 0, 4, 4]]), (NAME,), np.array([True]), np.array([False]))
    scene = compose(sources["val"], "val", 0, size=64, seed=0)
    files = ShardFiles(Path(NAME), ("a.tar",), np.array([b"x"]), np.array([0]), np.array([0]), np.array([9]))
    written = WrittenScenes(
        layout="voc", train=10, val=5, size=64, shapes="square", seed=0, objects="digits",
        classes={str(i): NAME for i in range(10)}, photos={"china": "sky"},
    )  # fmt: skip
    segments = SegmentationData(NAME, "val", ("a",), (), lambda file: np.zeros((2, 2)), np.zeros(1, np.int16))
    return [
        *(replace(digits, classes=(NAME, *digits.classes[1:])), digits.val, boxes, scene, scene.objects[0], files),
        *(written, segments, sources["val"], Shards(NAME, Path(NAME), (Path("a.tar"),))),
        BoxData(NAME, "val", (), lambda item: boxes),
        MultiCropImages(files),  # pyright: ignore[reportArgumentType]
        ShardsWritten({NAME: 1000, "val": 10}, {NAME: 2, "val": 1}, 10),
        Deviation("fast against exact", 0.01, 0.02, 0.01, 0.2, 0.01, 0.1, n=10, seed=0),
    ]
