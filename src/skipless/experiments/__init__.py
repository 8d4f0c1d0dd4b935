"""The paper's tables and figures, a room for each family of them.

A room is a folder. Its `__init__.py` is its door: it says, without torch, which recipes and reports the room has and
what they can be asked for. Behind the door the same few files have the same names wherever they are needed:
`recipe.py` (what is trained, at which scales), `paper.py` (the paper's numbers), `run.py` (how a report is made),
`report.py` (its tables), `figures.py`, `page.py`, and `text.py` (what is said of it). `skipless.registry` has a line
for each room. No room imports another: a recipe that another room has named is asked for in the registry, as the
command line does.
"""
