"""Spectra of linear operators: the extreme singular values, and the density of those between."""
