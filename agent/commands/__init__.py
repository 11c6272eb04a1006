"""The verbs of the command line, one module each: `add_arguments` and `run`; the docstring is the text of `--help`."""
