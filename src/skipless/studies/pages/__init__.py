"""The pages of studies: of one model, of several side by side, and what both say in words."""
