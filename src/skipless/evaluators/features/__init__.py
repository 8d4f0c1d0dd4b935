"""Features: of any block, in one forward pass, and kept on disk."""
