"""The run folder: atomic files, checkpoints without pickle, and the record of what a run was asked for."""
