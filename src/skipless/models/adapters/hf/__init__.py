"""Hugging Face transformers: a file for each kind of block, and how skipless models are saved and loaded."""
