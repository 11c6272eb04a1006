"""`edgescribe run`: listen, transcribe, publish, until stopped."""

import argparse
import signal

from agent.commands.options import add_settings_options, settings_from


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb `run`."""
    parser = subparsers.add_parser(
        "run",
        help="listen, transcribe, publish, until stopped",
        description="Listens to the configured source and publishes what is said, until SIGTERM or Ctrl-C.",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the agent in the foreground."""
    settings = settings_from(args)

    from agent import log
    from agent.app import App
    from agent.systemd import Notifier

    log.configure(settings.log.level)
    app = App(settings, Notifier())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.stop())
    return app.run()
