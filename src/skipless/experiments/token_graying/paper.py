"""What the sibling paper states (Always Skip Attention, arXiv 2505.01996)."""

EPS = (0.9, 0.7, 0.6, 0.5)
# ViT-B, SVD: top-1 by eps, and log kappa of the input without and with it (which eps is not stated, nor which log).
PAPER_TOP1 = {None: 81.0, 0.9: 81.2, 0.7: 81.4, 0.6: 81.4, 0.5: 81.0}
PAPER_LOG_KAPPA = (6.72, 5.29)
