"""What the paper states in Table 1, and where its numbers come from."""

from collections.abc import Mapping

from skipless.choices import Row
from skipless.report.labels import OptimizerLabel
from skipless.report.run_records import Setting

PAPER_SETTING = Setting(model="ViT-B", data="ImageNet-1k", epochs=300, classes=1000)

PAPER_TABLE1: Mapping[tuple[Row, OptimizerLabel], float] = {
    ("skip", "AdamW"): 80.3,
    ("skip", "SOAP"): 80.1,
    ("skipless", "AdamW"): 61.4,
    ("skipless", "SOAP"): 77.0,
    ("skipless + init", "AdamW"): 78.1,
    ("skipless + init", "SOAP"): 80.8,
}
"""Table 1 of the paper: validation accuracy in percent. One number a cell, no seed and no spread stated."""
