"""Evaluators compute the reported scores: each takes a model or its features, and data, and returns a record."""

from skipless.evaluators.classification.accuracy import top1
from skipless.evaluators.classification.linear_classification import linear_classification_probe
from skipless.evaluators.classification.nearest_neighbours import KnnAccuracy, knn, knn_blocks
from skipless.evaluators.discovery import CorLoc, Discovery, corloc, draw_discoveries, lost, tokencut
from skipless.evaluators.features.extraction import FeatureConfig, Features, ImageTransform, features, pad_to_patch
from skipless.evaluators.features.store import FeatureStore, store_bytes
from skipless.evaluators.features.store_builder import build_store, files_identity
from skipless.evaluators.language import (
    TaskScore,
    TaskScores,
    TextFloors,
    TextSample,
    TextScore,
    sample_text,
    score_tasks,
    score_text,
    text_floors,
)
from skipless.evaluators.pictures.pca import PcaColours, pca_colours, pca_picture
from skipless.evaluators.probe.dense_set import DenseSet
from skipless.evaluators.probe.linear_probe import TrainedProbe, linear_probe
from skipless.evaluators.probe.pipeline import probe_model
from skipless.evaluators.probe.prediction_picture import prediction_picture
from skipless.evaluators.probe.protocols import PROTOCOLS, DenseProtocol, protocol_named
from skipless.evaluators.probe.results import BlockScore, ProbeResult, RateScore
from skipless.evaluators.probe.segmentation_metrics import SegmentationScores, confusion_matrix, segmentation_scores
from skipless.evaluators.quantisation import (
    ActivationStatistics,
    activation_statistics,
    excess_kurtosis,
    quantise_,
    rotate_,
    sqnr,
    unquantise_,
)

__all__ = [
    "PROTOCOLS",
    "ActivationStatistics",
    "BlockScore",
    "CorLoc",
    "DenseProtocol",
    "DenseSet",
    "Discovery",
    "FeatureConfig",
    "FeatureStore",
    "Features",
    "ImageTransform",
    "KnnAccuracy",
    "PcaColours",
    "ProbeResult",
    "RateScore",
    "SegmentationScores",
    "TaskScore",
    "TaskScores",
    "TextFloors",
    "TextSample",
    "TextScore",
    "TrainedProbe",
    "activation_statistics",
    "build_store",
    "confusion_matrix",
    "corloc",
    "draw_discoveries",
    "excess_kurtosis",
    "features",
    "files_identity",
    "knn",
    "knn_blocks",
    "linear_classification_probe",
    "linear_probe",
    "lost",
    "pad_to_patch",
    "pca_colours",
    "pca_picture",
    "prediction_picture",
    "probe_model",
    "protocol_named",
    "quantise_",
    "rotate_",
    "sample_text",
    "score_tasks",
    "score_text",
    "segmentation_scores",
    "sqnr",
    "store_bytes",
    "text_floors",
    "tokencut",
    "top1",
    "unquantise_",
]
