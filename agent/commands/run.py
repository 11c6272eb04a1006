"""`edgescribe run`: listen, transcribe, publish, until stopped."""

import argparse
import faulthandler
import signal

from agent import log
from agent.app import App
from agent.commands.options import add_settings_options, options_of, settings_from
from agent.systemd import Notifier

STDERR = 2
"""The journal, under systemd."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb `run`."""
    parser = subparsers.add_parser(
        "run",
        description="Listens to the configured source and publishes what is said, until SIGTERM or Ctrl-C.",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the agent in the foreground."""
    settings = settings_from(args)
    log.configure(settings.log.level)
    # What a crash, or systemd's watchdog with its SIGABRT, interrupts is written to the journal, thread by thread.
    faulthandler.enable(STDERR)
    app = App(settings, Notifier(), read_again=lambda: settings_from(args), options=options_of(args))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.stop())
    signal.signal(signal.SIGHUP, lambda *_: app.reload())
    return app.run()
