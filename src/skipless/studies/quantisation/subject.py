"""What a study of few bits scores and measures: a classifier, features or a language model, with its data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from skipless.choices import Documents
from skipless.data import ImageConfig, ImageData, load_images, relabelled
from skipless.data.loading.loader import BatchKey, EvalLoader
from skipless.display.values import place_name
from skipless.errors import InputError
from skipless.evaluators import FeatureConfig, features, knn, linear_classification_probe, score_text, top1
from skipless.evaluators.features.store_builder import tensors_hash
from skipless.models.vit_view import find_vit
from skipless.recipes.language import EVALUATED_TOKENS
from skipless.recipes.source import ModelSource
from skipless.recipes.supervised import recorded_classes
from skipless.studies.config import QuantisationConfig
from skipless.studies.language.subject import subject as language_subject
from skipless.studies.pooled import split_identity


@dataclass(frozen=True)
class Metric:
    """What says how good a model is.

    Attributes:
        name: with its unit.
        rises: whether more is better.
        trivial: what needs no model, by name; None where nothing is known.
    """

    name: str
    rises: bool
    trivial: tuple[str, float] | None = None


@dataclass(frozen=True)
class Score:
    """How good a model was found to be.

    Attributes:
        value: of the metric.
        n: images or tokens that it is of.
        probe: top-1 accuracy of a linear probe in per cent, where the metric is of features; None for a classifier or
            a language model, and where every head diverged.
    """

    value: float
    n: int
    probe: float | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """A model with what it is scored and measured on.

    Attributes:
        model: on the device where it shall run.
        data: name of the data.
        metric: what says how good it is.
        probed: whether a linear probe is trained beside the metric, since that is of features.
        score: says how good the model is.
        held_out: batches to measure activations on.
        training: batches that static quantisation is calibrated on, of the training data.
        identity: everything that the numbers depend on, besides the settings.
    """

    model: nn.Module
    data: str
    metric: Metric
    probed: bool
    score: Callable[[nn.Module], Score]
    held_out: Callable[[], list[Tensor]]
    training: Callable[[], list[Tensor]]
    identity: dict[str, Any]


def measured(
    source: ModelSource,
    config: QuantisationConfig,
    *,
    data: str | None = None,
    tokenizer: str | None = None,
    documents: Documents | None = None,
) -> Measured:
    """What a study measures of an opened model: top-1 of a classifier, bits per byte of text, else k-NN and a probe.

    Raises:
        InputError: if there are no data for it, or options are not for such a model.
    """
    if source.context is not None:
        return _of_text(source, config, data, tokenizer, documents)
    if tokenizer is not None or documents is not None:
        raise InputError(f"--tokenizer and --documents are for language models; {source.name!r} is a model of images")
    return _of_images(source, config, data)


def _of_text(
    source: ModelSource,
    config: QuantisationConfig,
    data: str | None,
    tokenizer: str | None,
    documents: Documents | None,
) -> Measured:
    of = language_subject(source, tokenizer=tokenizer)
    text = of.text(data, documents)
    batch = max(1, EVALUATED_TOKENS // of.context)

    def score(model: nn.Module) -> Score:
        found = score_text(model, text.val, context=of.context, batch_size=batch, most=config.held_out)
        return Score(found.bits_per_byte, found.tokens)

    def windows(split: Any, wanted: int) -> list[Tensor]:
        ids = split.ids
        count = min(wanted, len(ids) // of.context)
        if not count:
            raise InputError(f"the text has {len(ids)} tokens, fewer than the context of {of.context}: give more")
        generator = torch.Generator().manual_seed(config.seed)
        places = torch.randperm(len(ids) // of.context, generator=generator)[:count].sort().values * of.context
        rows = [torch.from_numpy(ids[place : place + of.context].astype("int64")) for place in places.tolist()]
        return list(torch.stack(rows).split(config.batch_size))

    return Measured(
        of.model,
        place_name(text.source),
        Metric("bits per byte", False),
        False,
        score,
        lambda: windows(text.val, config.inputs),
        lambda: windows(text.train, config.calibration),
        {"text": text.identity, "model": of.identity, "context": of.context},
    )


def _of_images(source: ModelSource, config: QuantisationConfig, data: str | None) -> Measured:
    if config.held_out is not None:
        raise InputError(f"--held-out is for language models; {source.name!r} is a model of images")
    images = _load(source, data)
    classifies = source.recipe is not None and source.recipe.classifies
    loader = EvalLoader(images.val, batch_size=config.batch_size)
    majority = 100 * (images.val.labels == images.train.labels.bincount().argmax()).double().mean().item()

    def classify(model: nn.Module) -> Score:
        found = top1(model, loader)
        return Score(found["top1"], int(found["n"]))

    def drawn(split: Any, wanted: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(config.seed)
        places = torch.randperm(len(split), generator=generator)[:wanted].sort().values
        return [split.__getitems__(BatchKey(0, 0, part))[0] for part in places.split(config.batch_size)]

    name = "top-1, %" if classifies else f"k-NN top-1 of the last block, k = {config.k}, %"
    return Measured(
        source.model,
        place_name(data or (source.recipe.data.data if source.recipe is not None else "")),
        Metric(name, True, ("largest class", majority)),
        not classifies,
        classify if classifies else lambda model: _score_features(model, images, config),
        lambda: drawn(images.val, config.inputs),
        lambda: drawn(images.train, config.calibration),
        {
            "images": [split_identity(images.train), split_identity(images.val), images.image_size],
            "weights": tensors_hash(source.model),
            "modules": repr(source.model),
            **({} if classifies else {"scored by": "k-NN and a linear probe"}),
        },
    )


def _load(source: ModelSource, data: str | None) -> ImageData:
    """Images without augmentation, normalised as the model wants them, labelled as its classifier has learned them."""
    recipe = source.recipe
    if data is None and recipe is None:
        raise InputError("quantisation needs --data: digits, fashion, or a folder with train/CLASS and val/CLASS")
    base = ImageConfig(image_size=source.image_size) if recipe is None else recipe.data
    images = load_images(replace(base, data=data or base.data, augmentation="none", image_size=source.image_size))
    if recipe is not None and recipe.classifies and source.folder is not None:
        classes = recorded_classes(source.folder)
        images = images if classes is None else relabelled(images, classes)
    tokens = find_vit(source.model)
    mean, std = source.statistics or (tokens.mean, tokens.std)
    if len(mean) != images.channels:
        raise InputError(
            f"{source.title} takes images of {len(mean)} channels, those of {data!r} have {images.channels}"
        )
    train, val = images.train.normalised_by(mean, std), images.val.normalised_by(mean, std)
    return replace(images, train=train, val=val)


def _score_features(model: nn.Module, images: ImageData, config: QuantisationConfig) -> Score:
    """k-NN and a linear probe, both found anew among the training features of the model as it is.

    The probe's learning rate is chosen on training images that are held out.
    """
    train, val = (_vectors(model, split, config) for split in (images.train, images.val))
    nearest = knn(*train, *val, k=min(config.k, len(train[1])))[0]
    classes = 1 + int(torch.cat([train[1], val[1]]).max())
    (probe,) = linear_classification_probe(
        {0: train[0]}, train[1], {0: val[0]}, val[1], classes=classes, select="holdout", seed=config.seed
    ).blocks
    return Score(nearest, len(val[1]), probe.top1)


def _vectors(model: nn.Module, split: Any, config: QuantisationConfig) -> tuple[Tensor, Tensor]:
    """The last block's class token of every image, or the mean of its patches; and the labels."""
    device, wanted = next(model.parameters()).device, FeatureConfig(blocks=(-1,))
    of_class, rows, labels = find_vit(model).class_token, [], []
    for images, own in EvalLoader(split, batch_size=config.batch_size):
        (found,) = features(model, images.to(device), wanted, batch_size=config.batch_size).values()
        rows.append((found.prefix[:, 0] if of_class else found.patches.mean(1)).float().cpu())
        labels.append(own)
    return torch.cat(rows), torch.cat(labels).long()
