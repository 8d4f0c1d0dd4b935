"""The one exception that stands for bad input, and what may have been meant."""

from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used; the message quotes it and names the remedy.

    The command line prints the message as one line and exits with code 2. Any other exception is a defect of ours and
    keeps its traceback.
    """


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A question for an error message: which known name is nearest to a mistyped one.

    Args:
        given: as typed.
        known: the names that there are.

    Returns:
        The question and a blank after it, or nothing where no name is near.

    Example:
        >>> did_you_mean("fashon", ["digits", "fashion"])
        'did you mean fashion? '
        >>> did_you_mean("imagenet/", ["digits", "fashion"])
        ''
    """
    import difflib

    spelt = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), spelt, n=1)
    return f"did you mean {spelt[near[0]]}? " if near else ""
