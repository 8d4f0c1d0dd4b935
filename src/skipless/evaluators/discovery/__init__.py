"""Unsupervised object discovery (section 6.3): TokenCut, LOST, CorLoc, and pictures of the found objects."""

from skipless.evaluators.discovery.corloc import CorLoc, corloc, iou
from skipless.evaluators.discovery.discovery_picture import draw_discoveries
from skipless.evaluators.discovery.lost import lost
from skipless.evaluators.discovery.regions import Discovery
from skipless.evaluators.discovery.tokencut import tokencut

__all__ = ["CorLoc", "Discovery", "corloc", "draw_discoveries", "iou", "lost", "tokencut"]
