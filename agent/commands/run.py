"""Listens to the configured source and publishes what people say, until SIGTERM or Ctrl-C.

Examples:
    edgescribe run
    edgescribe run --set mqtt.host=broker.lan --set log.level=debug
"""

import argparse
import faulthandler
import signal

from agent import log
from agent.app import App
from agent.commands.options import add_settings_options, options_of, settings_from
from agent.systemd import Notifier

STDERR = 2
"""The journal, under systemd."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the agent in the foreground."""
    settings = settings_from(args)
    log.configure(settings.log.level)
    # A crash, or SIGABRT from systemd's watchdog, leaves the stack of every thread in the journal.
    faulthandler.enable(STDERR)
    app = App(settings, Notifier(), read_again=lambda: settings_from(args), options=options_of(args))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.stop())
    signal.signal(signal.SIGHUP, lambda *_: app.reload())
    return app.run()
