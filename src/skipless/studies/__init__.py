"""What a backbone's features are worth: from a model and a data set to numbers and pictures in a folder.

Each file here joins one evaluator to the data that it is run on, goes on where it was cut off, counts what it could not
read, and lays beside the model what must be beaten.
"""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
