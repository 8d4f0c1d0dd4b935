"""A residual model with its stream turned: what a practitioner does against outliers."""
