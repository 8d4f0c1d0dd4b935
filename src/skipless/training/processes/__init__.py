"""Processes: devices, how the processes of `torchrun` meet, and parameters sharded over them."""
