"""Is the configuration right, and does what it names exist?"""

import argparse
import sys

from agent.commands.options import add_settings_options, load_from
from agent.diagnostics.configuration import advice, problems
from agent.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Say that all is well, or raise `ConfigError` with one line for every problem."""
    loaded = load_from(args)
    for warning in advice(loaded):
        print(f"edgescribe: warning: {warning}", file=sys.stderr)
    if found := problems(loaded):
        raise ConfigError("\n".join(found))
    print("configuration is fine")
    return 0
