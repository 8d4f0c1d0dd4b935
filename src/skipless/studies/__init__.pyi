# The studies and their settings
from skipless.studies.classifier import ClassifierResult as ClassifierResult, classify as classify
from skipless.studies.config import (
    ClassifierConfig as ClassifierConfig,
    DiscoveryConfig as DiscoveryConfig,
    NeighbourConfig as NeighbourConfig,
    PictureConfig as PictureConfig,
    PoolConfig as PoolConfig,
    ProbeConfig as ProbeConfig,
    Top1Config as Top1Config,
)
from skipless.studies.discovery import DiscoveryResult as DiscoveryResult, discover as discover
from skipless.studies.feature_pictures import draw_features as draw_features, find_pictures as find_pictures
from skipless.studies.neighbours import NeighbourResult as NeighbourResult, nearest_neighbours as nearest_neighbours
from skipless.studies.pooled import PooledData as PooledData
from skipless.studies.segmentation import (
    SegmentationResult as SegmentationResult,
    majority_scores as majority_scores,
    segment as segment,
)
from skipless.studies.top1 import Top1Result as Top1Result, top1_of_run as top1_of_run
