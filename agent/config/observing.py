"""The settings of how the device watches itself: a part of `config.Settings`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from agent.config.section import Section


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
    belongs behind a firewall. The address, or whoever knows it by the name given here, may come later than the service,
    as with Wi-Fi."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9478
    """Port to listen at; 0 takes a free one, which the log names."""


class TopSettings(Section):
    """What `edgescribe top` shows."""

    enabled: bool = True
    """Offer a socket in the runtime folder, else in the state folder, that only this user and root can open. It costs
    nothing while nobody looks."""
