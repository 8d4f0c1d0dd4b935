"""The index page over a folder of runs: what is found there, what each run came to, and what could not be read."""
