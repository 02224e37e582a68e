"""The one exception that users meet."""


class ScircuitError(ValueError):
    """A wrong input, told in one sentence: what is wrong, what is allowed, how to fix it.

    The command line prints the sentence and exits with code 2; notebooks see it as a `ValueError`.
    """
