"""How a model starts: its weights by the scheme, its positions, and attention with a given mean diagonal."""
