"""The one exception that stands for bad input."""


class InputError(ValueError):
    """What the user gave cannot be used; the message quotes it and names the remedy.

    The command line prints the message as one line and exits with code 2. Any other exception is a defect of ours and
    keeps its traceback.
    """
