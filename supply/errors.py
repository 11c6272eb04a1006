"""What goes wrong here, in one line each."""


class SupplyError(Exception):
    """A wheelhouse cannot be made; the message says why, and what to do."""
