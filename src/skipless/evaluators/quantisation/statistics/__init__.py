"""What activations are like: kurtosis, moments and SQNR at every site of every block, and what they come from."""
