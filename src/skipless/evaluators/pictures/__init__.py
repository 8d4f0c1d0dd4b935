"""Pictures: features as colours, and grids of images with model outputs beside them."""
