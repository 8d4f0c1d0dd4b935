"""Features of any block, computed in one forward pass and stored on disk."""
