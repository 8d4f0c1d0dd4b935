"""Spectra: both ends of an operator's singular values, and how they are spread between."""
