"""Installs edgescribe on this device as a systemd service, shows it, and removes it again.

Examples:
    sudo /opt/edgescribe/bin/edgescribe service install --now
    edgescribe service install --dry-run
    sudo /opt/edgescribe/bin/edgescribe service uninstall
"""

import argparse
import getpass
import os
import shlex
import sys
from pathlib import Path
from typing import Final

from agent.commands.models import pull
from agent.commands.options import add_overrides_option, engine_kind_for, password_from
from agent.config.layers import load, models_dir, parse_override
from agent.config.settings import AutoSettings, Settings, WhisperCppSettings
from agent.diagnostics import Status
from agent.diagnostics.configuration import MODEL_SUBJECTS, findings, is_for_the_service_only
from agent.diagnostics.facts import connect_problem
from agent.errors import ConfigError, InstallError
from agent.install import broker, disk, systemctl
from agent.install.facts import STATE, look
from agent.install.plan import MODELS, SECRET, PlannedFile, files, proposal
from agent.messages import identity
from agent.models.catalogue import load_catalogue
from agent.telemetry.naming import broker_name

BROKERS: Final = ("localhost", "homeassistant.local")
"""Usual places of a broker: this machine, or Home Assistant OS, which announces this name."""
MQTT_PORT: Final = 1883
NOT_ACTIVE: Final = 3
"""As `systemctl status` has it."""
READABLE_UMASK: Final = 0o022


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    install = actions.add_parser(
        "install",
        help="write unit, settings and password, fetch the model",
        description="Writes the unit with the drop-ins that the board needs, minimal settings and the broker's "
        "password, and fetches the model. Finds a single microphone, and a broker on this machine or at "
        "homeassistant.local, by itself. May be run again: existing settings stay, except those that you name.",
    )
    install.add_argument("--mqtt-host", metavar="HOST", help="the broker (default: the one that it finds)")
    install.add_argument(
        "--username", metavar="NAME", help="name at the broker (default, with a password: the device's id)"
    )
    install.add_argument("--password-file", metavar="FILE", help="file with its password; - for standard input")
    install.add_argument(
        "--device", metavar="PCM", help="the microphone, see `edgescribe devices` (default: the only one)"
    )
    install.add_argument("--model", metavar="NAME", help="see `edgescribe models list` (default: tiny.en-q8_0)")
    add_overrides_option(install, "any other setting, such as mqtt.tls.enabled=true; may be repeated")
    install.add_argument("--now", action="store_true", help="start it at once, and wait until it listens")
    install.add_argument("--force", action="store_true", help="take over a unit that this command did not write")
    install.add_argument("--dry-run", action="store_true", help="show the files and write none; needs no root")
    install.set_defaults(run=_install)
    uninstall = actions.add_parser(
        "uninstall",
        help="stop it and remove the files of install",
        description="Stops the service and removes its unit, settings, password, models and state, undelivered "
        "transcripts included. Files that you have changed or added stay: it names them. The program stays, too.",
    )
    uninstall.add_argument("--purge", action="store_true", help="remove changed and added settings and drop-ins, too")
    uninstall.set_defaults(run=_uninstall)
    status = actions.add_parser("status", help="show its state: exit status 0 if it runs, 3 if not")
    status.set_defaults(run=_status)


def _install(args: argparse.Namespace) -> int:
    if not args.dry_run:
        _require_root_and_systemd()
    # Settings without a folder mean the folder that systemd gives the service, not one in root's home.
    os.environ.setdefault("STATE_DIRECTORY", STATE)
    said, password, found = _said(args), _password(args), look()
    # A host that does not answer takes some seconds.
    hosts = BROKERS if found.config is None and "mqtt.host" not in said else ()
    proposed = proposal(found, said, next((host for host in hosts if not connect_problem(host, MQTT_PORT)), None))
    loaded = load(None, {**proposed, **({} if password is None else {"mqtt.password": password})})
    faults = [one for one in findings(loaded) if one.status is Status.FAIL and one.subject not in MODEL_SUBJECTS]
    if faults:
        raise ConfigError("\n".join(fault.text for fault in faults))
    settings = loaded.settings
    planned = files(found, proposed, settings, password=password, force=args.force)
    _ask_broker(settings)
    if args.dry_run:
        _show(planned, settings)
        return 0
    # All users may read models and settings, also if root's umask is stricter.
    os.umask(READABLE_UMASK)
    record = disk.make_folder(MODELS, found.record) if models_dir(settings) == Path(MODELS) else found.record
    if model := _model_of(settings):
        pull(model, settings)
        print(f"model       {model}")
    written = disk.write(planned, record)
    for path in written:
        print(f"wrote       {path}")
    if not written:
        print("unchanged   all files are in order")
    _start(settings, now=args.now, changed=bool(written))
    return 0


def _require_root_and_systemd() -> None:
    if os.geteuid():
        again = shlex.join(["sudo", str(Path(sys.argv[0]).absolute()), *sys.argv[1:]])
        raise InstallError(f"this changes /etc and needs root: {again}")
    if not systemctl.is_running():
        raise InstallError("this machine does not run systemd: see `edgescribe run`, which runs in the foreground")


def _said(args: argparse.Namespace) -> dict[str, object]:
    """Return the settings of the command line, by dotted key."""
    said = {"mqtt.host": args.mqtt_host, "mqtt.username": args.username, "source.device": args.device}
    if args.model:
        said |= {"engine.kind": engine_kind_for(args.model), "engine.model": args.model}
    given = {key: value for key, value in said.items() if value is not None}
    return given | dict(parse_override(argument) for argument in args.overrides)


def _password(args: argparse.Namespace) -> str | None:
    """Return the broker's password, from the file, or from the terminal if only a name is given; None without one."""
    if args.password_file is not None:
        return password_from(args.password_file)
    if args.username is None or not sys.stdin.isatty():
        return None
    return getpass.getpass(f"Password of {args.username} at the broker (empty for none): ") or None


def _ask_broker(settings: Settings) -> None:
    """Raise `SinkError` if the broker refuses this device; only warn if it is out of reach: it may come later."""
    key_file = settings.mqtt.tls.key_file
    if not settings.mqtt.enabled or (key_file and is_for_the_service_only(key_file)):
        return
    if problem := broker.ask(settings.mqtt, identity.device_id(settings.device.id)):
        later = "the service will try again, and keep the transcripts until then"
        print(f"edgescribe: warning: no broker at {broker_name(settings)} ({problem}): {later}", file=sys.stderr)
    else:
        print(f"broker      {broker_name(settings)} lets us in")


def _show(planned: tuple[PlannedFile, ...], settings: Settings) -> None:
    if model := _model_of(settings):
        print(f"would fetch {model} into {models_dir(settings)}, if it is not there")
    for file in planned:
        print(f"would write {file.path}, mode {file.mode:o}:")
        text = "(the password)" if file.mode == SECRET else file.text
        print("".join(f"    {line}\n" if line else "\n" for line in text.splitlines()))


def _start(settings: Settings, *, now: bool, changed: bool) -> None:
    systemctl.run("daemon-reload")
    systemctl.run("--quiet", "enable", systemctl.SERVICE)
    if now and (changed or systemctl.condition().active != "active"):
        systemctl.start()
    _print_condition(systemctl.condition())
    if changed and not now:
        print("\nIt starts with the machine. At once:  systemctl restart edgescribe")
    elif settings.mqtt.enabled:
        print(f"\nTo see transcripts:  mosquitto_sub -h {settings.mqtt.host} -t 'edgescribe/v1/+/transcript' -v")


def _print_condition(condition: systemctl.Condition) -> None:
    print(f"service     {condition.active}{f': {condition.status}' if condition.status else ''}")


def _model_of(settings: Settings) -> str | None:
    """Return the model to fetch; None if the engine has none, or one of the user's own."""
    if isinstance(settings.engine, AutoSettings):
        return WhisperCppSettings().model  # until a calibration chooses another
    name = getattr(settings.engine, "model", None)
    return name if name and (name in load_catalogue() or os.sep not in name) else None


def _uninstall(args: argparse.Namespace) -> int:
    _require_root_and_systemd()
    record = look().record
    if not record.files and not record.folders:
        print("no file to remove: `edgescribe service install` has not run on this machine")
        return 0
    for action in (("--quiet", "disable", "--now"), ("reset-failed",)):  # fine if there is no such unit
        systemctl.run(*action, systemctl.SERVICE, check=False)
    kept = disk.remove(record, purge=args.purge)
    systemctl.run("daemon-reload")
    for path in kept:
        print(f"kept        {path}: changed or added by hand (--purge removes it)")
    print(f"removed     the service, its settings and its state; the program itself:  rm -r {shlex.quote(sys.prefix)}")
    return 0


def _status(_args: argparse.Namespace) -> int:
    if not systemctl.is_running():
        raise InstallError("this machine does not run systemd")
    now = systemctl.condition()
    if not now.loaded:
        print("service     not installed: edgescribe service install")
        return NOT_ACTIVE
    _print_condition(now)
    if now.since:
        print(f"since       {now.since}, restarted {now.restarts} times")
    print(f"at boot     {'starts' if now.enabled else 'does not start: systemctl enable edgescribe'}")
    if now.active != "active":
        print(*(f"said        {line}" for line in systemctl.last_log_lines()), sep="\n")
    return 0 if now.active == "active" else NOT_ACTIVE
