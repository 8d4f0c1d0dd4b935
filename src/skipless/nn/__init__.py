"""Layers of the sibling papers."""
