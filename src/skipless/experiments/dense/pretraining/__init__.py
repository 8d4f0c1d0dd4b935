"""The pretrainings of this room: made once, tuned, and read back."""
