"""`edgescribe config`: the settings in force, secrets masked, and where each one came from."""

import argparse
import json

from agent.commands.options import add_settings_options, load_from


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "config",
        help="what is in force, and from where",
        description="The settings in force, secrets masked, and where each one came from.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object: settings and origins")
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the effective settings."""
    from agent.config.commanded import with_changes
    from agent.diagnostics.listing import as_object, as_toml

    loaded = with_changes(load_from(args))
    print(json.dumps(as_object(loaded), indent=2, ensure_ascii=False) if args.json else as_toml(loaded))
    return 0
