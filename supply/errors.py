"""The error of this package."""


class SupplyError(Exception):
    """A wheelhouse cannot be made. The message is one line: the reason, and the remedy."""
