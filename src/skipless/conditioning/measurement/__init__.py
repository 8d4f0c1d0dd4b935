"""Measurements of a model's conditioning at given images, before, during and after training."""
