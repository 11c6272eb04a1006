"""Checks the settings: are they right, and do the files, models and packages that they name exist?

Exit status 78 if the agent would not start, with one line for each fault on standard error. Warnings do not count.

Examples:
    edgescribe check
    edgescribe check --config new.toml
"""

import argparse
import sys

from agent.commands.options import add_settings_options, load_from
from agent.diagnostics import Status
from agent.diagnostics.configuration import findings
from agent.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the warnings; raise `ConfigError` with one line for every fault."""
    found = findings(load_from(args))
    for finding in found:
        if finding.status is Status.WARN:
            print(f"edgescribe: warning: {finding.text}", file=sys.stderr)
    if faults := [finding.text for finding in found if finding.status is Status.FAIL]:
        raise ConfigError("\n".join(faults))
    print("configuration is fine")
    return 0
