"""The one error that a person can cause, and its one kind that a search goes on after."""


class InputError(ValueError):
    """What was given can't be used. The message says what, where (file and row), and what would be accepted.

    The command line prints it as one sentence and leaves with status 2.
    """


class OutOfReachError(InputError):
    """A network that can't be brought under its limits; another one may be."""
