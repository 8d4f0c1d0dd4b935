"""Studies evaluate the features of a model on a data set and write numbers and pictures to a folder.

Each study joins one evaluator to its data. It resumes where it was interrupted, reports the images that it could not
read, and scores a trivial baseline beside the model.
"""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
