"""The verbs of the command line, one module each. The docstring is the text of `--help`.

`add_arguments` declares the options. `run` does the work; a verb with actions sets `run` for each of them instead.
"""
