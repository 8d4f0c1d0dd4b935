"""Classification: accuracy of a classifier, and k-NN and linear heads on frozen features."""

from skipless.evaluators.classification.accuracy import top1
from skipless.evaluators.classification.linear_classification import ClassificationProtocol, linear_classification_probe
from skipless.evaluators.classification.nearest_neighbours import KnnAccuracy, knn, knn_blocks

__all__ = ["ClassificationProtocol", "KnnAccuracy", "knn", "knn_blocks", "linear_classification_probe", "top1"]
