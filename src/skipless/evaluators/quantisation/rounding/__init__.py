"""Rounding to few bits: grids, fake quantisation put in and taken out, real kernels."""
