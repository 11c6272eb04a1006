"""The verbs of the command line. Each module has `add_parser` (its grammar) and `run` (what it does)."""
