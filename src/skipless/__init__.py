"""Train, measure and evaluate transformers without skip connections."""
