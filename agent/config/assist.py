"""The settings of speech to text for others: a part of `config.Settings`."""

from typing import Annotated

from pydantic import Field

from agent.config.section import Section


class AssistSettings(Section):
    """Speech to text for Home Assistant's Assist, by the Wyoming protocol. Needs the extra `assist`."""

    enabled: bool = False
    """Transcribe what others send. The microphone of this device comes first."""
    host: str = "127.0.0.1"
    """Address to listen on: that of this device in your network. The protocol knows neither passwords nor encryption,
    so never one that strangers can reach. The address, or whoever knows it by the name given here, may come later than
    the service, as with Wi-Fi."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 10_300
    """TCP port; 0 takes a free one and logs which."""
