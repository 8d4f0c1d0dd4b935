"""What few bits cost a model, and what its activations are like."""
