"""What a backbone's features are worth: from a model and a data set to numbers and pictures in a folder.

Each file here joins one evaluator to the data that it is run on, goes on where it was cut off, counts what it could not
read, and lays beside the model what must be beaten.
"""

from skipless.studies.classifier import ClassifierConfig, ClassifierResult, classify
from skipless.studies.discovery import DiscoveryConfig, DiscoveryResult, discover
from skipless.studies.neighbours import NeighbourConfig, NeighbourResult, nearest_neighbours
from skipless.studies.pictures import PictureConfig, draw_features, find_pictures
from skipless.studies.pooled import PoolConfig, PooledData
from skipless.studies.segmentation import ProbeConfig, SegmentationResult, majority_scores, segment

__all__ = [
    "ClassifierConfig",
    "ClassifierResult",
    "DiscoveryConfig",
    "DiscoveryResult",
    "NeighbourConfig",
    "NeighbourResult",
    "PictureConfig",
    "PoolConfig",
    "PooledData",
    "ProbeConfig",
    "SegmentationResult",
    "classify",
    "discover",
    "draw_features",
    "find_pictures",
    "majority_scores",
    "nearest_neighbours",
    "segment",
]
