"""The one error that a user's mistake raises."""


class InputError(ValueError):
    """What was asked for cannot be done: a value, a file or a name is wrong.

    The message is one sentence that names the value and what would be right. The command line prints it alone
    and exits with 2; from Python it is a `ValueError`.
    """
