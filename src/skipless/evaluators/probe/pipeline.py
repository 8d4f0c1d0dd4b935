"""The whole pipeline of dense linear probing: from a model and two data sets to features, heads and scores."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from skipless.choices import MULTISCALE
from skipless.errors import InputError
from skipless.evaluators.features.extraction import FeatureConfig, ImageTransform
from skipless.evaluators.features.store_builder import build_store
from skipless.evaluators.probe.dense_set import DenseSet, SegmentationDataset
from skipless.evaluators.probe.linear_probe import Select, TrainedProbe, linear_probe
from skipless.evaluators.probe.protocols import DenseProtocol, protocol_named
from skipless.models.vit_view import find_vit


def probe_model(
    model: nn.Module,
    train: SegmentationDataset,
    val: SegmentationDataset,
    *,
    folder: Path,
    identity: tuple[str, str],
    protocol: DenseProtocol | str = "paper",
    config: FeatureConfig | None = None,
    multiscale: tuple[int, ...] | None = MULTISCALE,
    select: Select = "val",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **store: Any,
) -> tuple[TrainedProbe, DenseSet]:
    """Probe a model: compute the features of both data sets unless they are on disk, then run `linear_probe`.

    Args:
        model: a vision transformer that an adapter knows, on the device where it shall run; the heads are trained
            there, too.
        train: training images and masks.
        val: images and masks to score.
        folder: folder for the features.
        identity: identity strings of the images of `train` and of `val`, see `build_store`.
        protocol: a name in `PROTOCOLS`, or a protocol.
        config: blocks, norm, precision, and one kind.
        multiscale: blocks whose concatenated features get one more head; None for none.
        select: see `linear_probe`.
        seed: see `linear_probe`.
        progress: progress of the heads' training, see `linear_probe`.
        **store: `transform`, `dtype`, `notify` and `progress` of `build_store`.

    Returns:
        The probe, and the validation set with its features, for pictures.

    Raises:
        InputError: as `build_store` and `linear_probe`, or if the config has several kinds.
    """
    protocol = protocol_named(protocol) if isinstance(protocol, str) else protocol
    config = _of_one_kind(config or FeatureConfig())
    depth = len(find_vit(model).views)
    singles = [block for block, _ in config.keys(depth)]
    several = [] if multiscale is None else [block for block, _ in replace(config, blocks=multiscale).keys(depth)]
    config = replace(config, blocks=tuple(sorted({*singles, *several})))
    store["transform"] = store.get("transform") or ImageTransform.of(model, protocol.image_size)
    dense = [
        _with_features(model, data, split, data_name, folder=folder, config=config, **store)
        for data, split, data_name in ((train, "train", identity[0]), (val, "val", identity[1]))
    ]
    sets = [(block,) for block in singles]
    sets += [tuple(several)] if several and tuple(several) not in sets else []
    probe = linear_probe(
        *dense,
        protocol=protocol,
        sets=sets,
        kind=config.kinds[0],
        select=select,
        seed=seed,
        device=next(model.parameters()).device,
        progress=progress,
    )
    return probe, dense[1]


def _of_one_kind(config: FeatureConfig) -> FeatureConfig:
    if len(config.kinds) != 1:
        raise InputError(f"kinds={config.kinds!r}: a probe takes one kind of feature")
    return config


def _with_features(model: nn.Module, data: SegmentationDataset, split: str, data_name: str, **store: Any) -> DenseSet:
    """A data set with its features, which are computed unless they are on disk."""
    load = getattr(data, "load_image", None) or (lambda index: data.load(index)[0])
    return DenseSet(build_store(model, load, len(data), data=data_name, **store), data, split)
