"""How results are shown: as one line, as text, as HTML in a notebook or on a page, and as a picture.

Nothing here imports matplotlib before something is drawn.
"""

from skipless.display.record import Record
from skipless.display.table import Link, Table

__all__ = ["Link", "Record", "Table"]
