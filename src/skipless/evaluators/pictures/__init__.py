"""Pictures: features as colours, and grids of images beside what models make of them."""
