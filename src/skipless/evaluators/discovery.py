"""Unsupervised object discovery, section 6.3 of the paper: TokenCut, LOST, CorLoc, and pictures of what is found."""

from skipless.evaluators.corloc import CorLoc, corloc, iou
from skipless.evaluators.discovery_picture import draw_discoveries
from skipless.evaluators.lost import lost
from skipless.evaluators.regions import Discovery
from skipless.evaluators.tokencut import tokencut

__all__ = ["CorLoc", "Discovery", "corloc", "draw_discoveries", "iou", "lost", "tokencut"]
