"""What measures a model: at any images, before, during and after training."""
