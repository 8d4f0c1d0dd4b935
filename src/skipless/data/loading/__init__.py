"""Loading: which samples make a batch, who reads them, and what happens to those that cannot be read."""
