"""The training loop: optimizer steps on one or many devices, logging, measurements and progress."""
