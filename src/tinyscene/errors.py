"""The one error that a person can cause."""


class InputError(ValueError):
    """What was given can't be used. The message says what, where (file and row), and what would be accepted.

    The command line prints it as one sentence and leaves with status 2.
    """
