"""The parts of `benchmarks/accelerator.py`: what is measured on an accelerator, a file a subject."""
