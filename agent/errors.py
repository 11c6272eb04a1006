"""The tree of errors that the agent raises on purpose.

    AgentError                      exit 1
    ├── ConfigError                 exit 78   a setting is unknown, malformed or contradictory
    ├── ModelError                  exit 78   a model is unknown, missing, damaged, or refused by the engine
    ├── SourceError                 exit 65   audio that cannot be read (not audio, no such file)
    │   └── DeviceUnavailable       exit 69   the microphone is absent or was lost
    │       ├── DeviceBusy                    another program has it open
    │       ├── DeviceStalled                 it is there, and delivers no sound
    │       └── DeviceEndless                 it delivers sound faster than real time, as a FIFO without a writer does
    ├── EngineError                 exit 70   inference failed
    ├── SinkError                   exit 69   the broker cannot be reached, or refuses the device
    └── InstallError                exit 73   the service cannot be installed or removed

Exit codes are those of sysexits.h. 78 (EX_CONFIG) means that a restart cannot help: the systemd unit has
`RestartPreventExitStatus=78`.

Every message is one line with the problem and its remedy. The command line prints it unchanged.
"""

from typing import ClassVar


class AgentError(Exception):
    """An error that the agent can explain in one line."""

    exit_code: ClassVar[int] = 1


class ConfigError(AgentError):
    """A setting is unknown, malformed, or contradicts another."""

    exit_code = 78


class ModelError(AgentError):
    """A model is unknown, absent or damaged, has another digest than expected, or the engine cannot load it."""

    exit_code = 78


class SourceError(AgentError):
    """Audio cannot be read: the file is absent, is no audio, or has an unsupported layout."""

    exit_code = 65


class DeviceUnavailable(SourceError):  # noqa: N818 - reads as a condition, and callers wait for it to pass
    """The capture device is absent, busy, or went away."""

    exit_code = 69
    code: ClassVar[str] = "mic_absent"
    """Code in `health`."""


class DeviceBusy(DeviceUnavailable):
    """Another program has the capture device open."""


class DeviceStalled(DeviceUnavailable):
    """The capture device, or the sound server behind it, hangs."""

    code = "mic_stalled"


class DeviceEndless(DeviceUnavailable):
    """The capture device delivers sound faster than real time."""

    code = "mic_endless"


class EngineError(AgentError):
    """The inference engine failed on an utterance, or cannot be started."""

    exit_code = 70


class SinkError(AgentError):
    """Messages could not be delivered: the broker is unreachable or refuses the device."""

    exit_code = 69


class InstallError(AgentError):
    """The service cannot be installed or removed."""

    exit_code = 73
