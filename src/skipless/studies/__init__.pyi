# The studies and their settings
from skipless.studies.classifier import ClassifierResult as ClassifierResult
from skipless.studies.classifier import classify as classify
from skipless.studies.config import (
    ClassifierConfig as ClassifierConfig,
)
from skipless.studies.config import (
    DiscoveryConfig as DiscoveryConfig,
)
from skipless.studies.config import (
    NeighbourConfig as NeighbourConfig,
)
from skipless.studies.config import (
    PictureConfig as PictureConfig,
)
from skipless.studies.config import (
    PoolConfig as PoolConfig,
)
from skipless.studies.config import (
    ProbeConfig as ProbeConfig,
)
from skipless.studies.discovery import DiscoveryResult as DiscoveryResult
from skipless.studies.discovery import discover as discover
from skipless.studies.feature_pictures import draw_features as draw_features
from skipless.studies.feature_pictures import find_pictures as find_pictures
from skipless.studies.neighbours import NeighbourResult as NeighbourResult
from skipless.studies.neighbours import nearest_neighbours as nearest_neighbours
from skipless.studies.pooled import PooledData as PooledData
from skipless.studies.segmentation import (
    SegmentationResult as SegmentationResult,
)
from skipless.studies.segmentation import (
    majority_scores as majority_scores,
)
from skipless.studies.segmentation import (
    segment as segment,
)
