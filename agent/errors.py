"""The one tree of errors that this package raises on purpose.

    AgentError                      exit 1
    ├── ConfigError                 exit 78   a setting is unknown, malformed or contradictory
    ├── ModelError                  exit 78   a model is unknown, missing, damaged, or refused by the engine
    ├── SourceError                 exit 65   audio that cannot be read (not audio, no such file)
    │   └── DeviceUnavailable       exit 69   the microphone is absent or was lost
    │       ├── DeviceBusy                    something else has it open
    │       ├── DeviceStalled                 it is there, and nothing comes from it
    │       └── DeviceEndless                 it delivers more than there is time for, as a FIFO without a writer does
    ├── EngineError                 exit 70   inference failed
    ├── SinkError                   exit 69   the broker is out of reach or refuses us
    └── InstallError                exit 73   the service cannot be installed or removed as things are

Exit codes are those of sysexits.h. 78 (EX_CONFIG) means that restarting cannot help: the systemd unit has
`RestartPreventExitStatus=78`.

Every message is one line that names what is wrong and what to do about it; the command line prints it as it is.
"""

from typing import ClassVar


class AgentError(Exception):
    """Something this program understands well enough to explain in one line."""

    exit_code: ClassVar[int] = 1


class ConfigError(AgentError):
    """A setting is unknown, malformed, or contradicts another."""

    exit_code = 78


class ModelError(AgentError):
    """A model is unknown, absent or damaged, has not the expected digest, or the engine cannot load it."""

    exit_code = 78


class SourceError(AgentError):
    """Audio cannot be read: no such file, not audio, an unsupported layout."""

    exit_code = 65


class DeviceUnavailable(SourceError):  # noqa: N818 - reads as a condition, and callers wait for it to pass
    """The capture device is absent, busy, or went away."""

    exit_code = 69
    code: ClassVar[str] = "mic_absent"
    """What `health` says."""


class DeviceBusy(DeviceUnavailable):
    """Something else has the capture device open."""


class DeviceStalled(DeviceUnavailable):
    """The capture device, or what serves it, hangs."""

    code = "mic_stalled"


class DeviceEndless(DeviceUnavailable):
    """The capture device delivers sound faster than it can have been captured."""

    code = "mic_endless"


class EngineError(AgentError):
    """The inference engine failed on an utterance, or cannot be started."""

    exit_code = 70


class SinkError(AgentError):
    """What was said could not be delivered: the broker is unreachable or refused us."""

    exit_code = 69


class InstallError(AgentError):
    """The service cannot be installed or removed as things are."""

    exit_code = 73
