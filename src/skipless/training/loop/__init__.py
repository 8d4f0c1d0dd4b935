"""The loop: steps on one or many devices, and what a run logs, measures and shows on its way."""
