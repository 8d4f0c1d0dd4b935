"""The theory of sections 4, 5 and A.4 as functions."""
