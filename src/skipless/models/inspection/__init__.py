"""What a model is like before training: its weights beside the scheme, and what becomes of tokens in it."""
