"""How a glance looks in a terminal: what is heard on top, how the machine is at the bottom. No state here."""

from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.messages import Latency
from agent.messages.telemetry import Pwr
from agent.terminal.snapshot import Glance, Sound
from agent.terminal.words import clean

BAR: Final = 40
_QUIETEST_DBFS: Final = -75.0
_LOUD_DBFS: Final = -12.0
_CLIPPING_DBFS: Final = -1.0
_HOT_C: Final = 75.0
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_LIKELY: Final = 0.5


def picture(glance: Glance) -> RenderableType:
    """The whole of it."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="dim", width=8, no_wrap=True)
    table.add_column(overflow="fold")
    for head, words in (
        ("level", _level(glance)),
        ("speech", _speech(glance)),
        ("engine", _engine(glance)),
        ("heard", _heard(glance)),
        ("latency", _latency(glance)),
        ("pace", _pace(glance)),
        ("so far", _so_far(glance)),
        ("governor", _governor(glance)),
        ("machine", _machine(glance)),
        ("broker", _broker(glance)),
    ):
        if words:
            table.add_row(head, words)
    return Group(_title(glance), _chain(glance), Text(), table)


def line(glance: Glance) -> str:
    """The same in one line, for a pipe."""
    cpu, sound = glance.telemetry.cpu, glance.sound
    parts = (
        f"{_local(glance):%H:%M:%S}",
        "muted" if not glance.listening else "",
        _figure("level {:.0f} dBFS", sound.rms_dbfs),
        _figure("speech {:.0f} %", _percent(sound.speech_prob)),
        _figure("speaking for {:.1f} s", glance.speaking_s),
        f"transcribing {glance.under_way.duration_s:.1f} s" if glance.under_way else "",
        f"{glance.telemetry.asr.waiting} waiting" if glance.telemetry.asr.waiting else "",
        _figure("cpu {:.0f} %", cpu.pct),
        _figure("{:.0f} °C", cpu.temp_c),
        " ".join(glance.health),
        f'"{clean(glance.last.text)}" {_ago(glance.last.ago_s)} ago' if glance.last else "",
    )
    return "  ".join(part for part in parts if part)


def _title(glance: Glance) -> Text:
    title = Text.assemble(("edgescribe ", "bold"), (f"{clean(glance.device)}  ", "bold cyan"))
    title.append(f"{_local(glance):%H:%M:%S}  {clean(glance.agent)}, up {_ago(glance.telemetry.up_s)}  ", "dim")
    if glance.health:
        title.append(" ".join(map(clean, glance.health)), "red")
    else:
        title.append("fine", "green")
    return title


def _chain(glance: Glance) -> Text:
    words = (glance.source, f"{glance.engine} {glance.model}", glance.language)
    return Text(" → ".join(clean(word) for word in words if word), "dim")


def _level(glance: Glance) -> Text:
    sound = glance.sound
    if not glance.listening:
        return Text("muted: the microphone is closed", "blue")
    if sound.rms_dbfs is None:
        return Text("no sound comes in", "yellow")
    words = _meter(sound)
    words.append(f" {sound.rms_dbfs:4.0f} dBFS")
    words.append(_figure("  peak {:.0f}", sound.peak_dbfs) + _figure("  room {:.0f}", sound.noise_floor_dbfs), "dim")
    return words


def _meter(sound: Sound) -> Text:
    """The level as a bar, the peak as a mark, the room's own level as another."""
    level, peak, floor = (_place(dbfs) for dbfs in (sound.rms_dbfs, sound.peak_dbfs, sound.noise_floor_dbfs))
    bar = Text()
    for place in range(BAR):
        dbfs = _QUIETEST_DBFS * (1 - place / BAR)
        style = "red" if dbfs >= _CLIPPING_DBFS * 2 else "yellow" if dbfs >= _LOUD_DBFS else "green"
        if place == peak:
            bar.append("▐", f"bold {style}")
        elif place < (level or 0):
            bar.append("█", style)
        else:
            bar.append("┆" if place == floor else "░", "dim")
    return bar


def _place(dbfs: float | None) -> int | None:
    return None if dbfs is None else max(0, min(BAR - 1, round(BAR * (1 - dbfs / _QUIETEST_DBFS))))


def _speech(glance: Glance) -> Text | None:
    probability = glance.sound.speech_prob
    if probability is None:
        return None
    full = round(BAR * probability)
    words = Text.assemble(("█" * full, "cyan" if probability >= _LIKELY else "dim cyan"), ("░" * (BAR - full), "dim"))
    words.append(f" {100 * probability:4.0f} %")
    if glance.speaking_s is not None:
        words.append(f"  ● speaking for {glance.speaking_s:.1f} s", "bold cyan")
    return words


def _engine(glance: Glance) -> Text:
    words = Text("idle", "dim")
    if glance.under_way:
        words = Text(f"transcribing {glance.under_way.duration_s:.1f} s of sound, for {glance.under_way.since_s:.1f} s")
    asr = glance.telemetry.asr
    if asr.waiting:
        words.append(f", {asr.waiting} waiting", "yellow")
    words.append(_figure("   dropped {:.1f} s", asr.dropped_s or None), "red")
    return words


def _heard(glance: Glance) -> Text | None:
    if not glance.shows_text:
        return Text("publish.privacy keeps the words in", "dim")
    if glance.partial and (glance.speaking_s is not None or glance.under_way):
        return Text(clean(glance.partial) + " …", "italic")
    if not (last := glance.last):
        return Text("nothing yet", "dim")
    return Text.assemble((clean(last.text), "bold"), (f"  {clean(last.verdict)}, {_ago(last.ago_s)} ago", "dim"))


def _latency(glance: Glance) -> Text | None:
    if not glance.last:
        return None
    took, asr = glance.last.latency_ms, glance.telemetry.asr
    words = _split(_parts(took))
    words.append(f" {took.total_from_speech_end} ms after the last word")
    words.append("\n")
    for ms, style, name in _parts(took):
        words.append(f"{name} {ms}  ", style)
    words.append(_figure(" p50 {:.0f}", asr.lat_ms_p50) + _figure(", p95 {:.0f} ms", asr.lat_ms_p95), "dim")
    return words


def _pace(glance: Glance) -> Text | None:
    asr = glance.telemetry.asr
    if asr.rtf_p50 is None:
        return None
    words = Text(f"real-time factor {asr.rtf_p50:.2f}", "dim")
    words.append(_figure(", p95 {:.2f}", asr.rtf_p95))
    return words


def _so_far(glance: Glance) -> Text:
    asr = glance.telemetry.asr
    counted = f"{asr.utt} utterances, {asr.rejected} rejected, {asr.discarded} too short, {asr.speech_pct:.0f} % speech"
    return Text(counted, "dim")


def _parts(took: Latency) -> tuple[tuple[int, str, str], ...]:
    """Milliseconds, colour, name. What the engine did inside the pause stands in both."""
    return (took.vad_close, "blue", "pause"), (took.queue, "yellow", "queue"), (took.encode_decode, "magenta", "engine")


def _split(parts: tuple[tuple[int, str, str], ...]) -> Text:
    """The parts side by side, in proportion."""
    total_ms = sum(ms for ms, _, _ in parts) or 1
    words = Text()
    for ms, style, _ in parts:
        words.append("█" * round(BAR * ms / total_ms), style)
    words.truncate(BAR, pad=True)
    return words


def _governor(glance: Glance) -> Text | None:
    if (governor := glance.governor) is None or not governor.levels:
        return None
    if not governor.level:
        return Text(f"as configured, with {governor.levels} steps below", "dim")
    words = Text(f"{governor.level} of {governor.levels} steps down", "yellow")
    words.append(f": {governor.reason}" if governor.reason else "")
    words.append("" if governor.eager else ", nothing is decoded ahead", "dim")
    return words


def _machine(glance: Glance) -> Text:
    host = glance.telemetry
    hot = (host.cpu.temp_c or 0.0) >= _HOT_C
    words = Text(_figure("CPU {:.0f} %  ", host.cpu.pct))
    words.append(_figure("{:.1f} °C  ", host.cpu.temp_c), "red" if hot else "")
    words.append(_figure("{:.0f} MHz  ", host.cpu.freq_mhz))
    words.append(_figure("memory {:.0f} %", host.mem.pct) + _figure(" (ours {:.0f} MiB)  ", host.mem.rss_mb))
    words.append(_figure("GPU {:.0f} %  ", host.gpu.pct if host.gpu else None))
    words.append(_figure("fan {:.0f} rpm  ", host.fan.rpm if host.fan else None))
    words.append(_figure("{:.1f} W  ", host.pwr.in_w if host.pwr else None))
    for trouble in _power(host.pwr):
        words.append(f"{trouble}  ", "red")
    return words


def _power(power: Pwr | None) -> tuple[str, ...]:
    if power is None:
        return ()
    low = f"under-voltage {power.uv_events}×" if power.uv_events else ""
    slow = f"throttled {power.thr_events}×" if power.thr_events else ""
    return tuple(words for words in (low, slow) if words)


def _broker(glance: Glance) -> Text | None:
    if (mqtt := glance.telemetry.mqtt) is None:
        return None
    words = Text(f"{mqtt.outbox_n} waiting", "yellow" if mqtt.outbox_n else "dim")
    words.append(_figure("   acknowledged in {:.0f} ms (p95)", mqtt.puback_ms_p95), "dim")
    words.append(_figure("   {:.0f} reconnections", mqtt.reconnects or None), "dim")
    words.append(_figure("   {:.0f} dropped", mqtt.dropped or None), "red")
    return words


def _figure(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _local(glance: Glance) -> datetime:
    return glance.at.astimezone()


def _ago(seconds: float) -> str:
    """Seconds in words, with the two units that matter."""
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"
