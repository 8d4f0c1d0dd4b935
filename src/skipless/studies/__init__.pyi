# The studies and their settings
from skipless.studies.classifier import ClassifierResult as ClassifierResult, classify as classify
from skipless.studies.config import (
    ClassifierConfig as ClassifierConfig,
    DiscoveryConfig as DiscoveryConfig,
    HeldOutConfig as HeldOutConfig,
    NeighbourConfig as NeighbourConfig,
    PictureConfig as PictureConfig,
    PoolConfig as PoolConfig,
    ProbeConfig as ProbeConfig,
    QuantisationConfig as QuantisationConfig,
    Top1Config as Top1Config,
    ZeroShotConfig as ZeroShotConfig,
)
from skipless.studies.discovery import DiscoveryResult as DiscoveryResult, discover as discover
from skipless.studies.feature_pictures import draw_features as draw_features, find_pictures as find_pictures
from skipless.studies.language.held_out import HeldOutResult as HeldOutResult, held_out_text as held_out_text
from skipless.studies.language.zero_shot import (
    Published as Published,
    ZeroShotResult as ZeroShotResult,
    zero_shot as zero_shot,
)
from skipless.studies.neighbours import NeighbourResult as NeighbourResult, nearest_neighbours as nearest_neighbours
from skipless.studies.pooled import PooledData as PooledData
from skipless.studies.quantisation.study import (
    QuantisationResult as QuantisationResult,
    quantisation_study as quantisation_study,
)
from skipless.studies.quantisation.subject import Metric as Metric
from skipless.studies.segmentation import (
    SegmentationResult as SegmentationResult,
    majority_scores as majority_scores,
    segment as segment,
)
from skipless.studies.top1 import Top1Result as Top1Result, top1_of_run as top1_of_run
