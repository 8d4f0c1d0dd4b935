"""The type checker under pytest: an int is a float, as everywhere else in Python (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
