"""The run folder: whole files, checkpoints without pickles, and what a run was asked for."""
