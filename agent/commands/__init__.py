"""The verbs of the command line: a module each, with its description, `add_arguments`, and `run`; some an `EPILOG`."""
