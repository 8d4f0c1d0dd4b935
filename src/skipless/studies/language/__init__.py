"""Studies of language models: held-out text beside floors, and zero-shot tasks."""
