"""Where another machine is found."""

import ipaddress
import re
from typing import Annotated, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from agent.config.section import InWords

_NAME: Final = re.compile(r"(?=.{1,253}$)[^\W_]([\w-]{0,61}\w)?(\.[^\W_]([\w-]{0,61}\w)?)*\.?")
"""RFC 1123, with the underscores and letters of other scripts that home networks have (IDNA spells them)."""


def _host(text: str) -> str:
    if not _NAME.fullmatch(text):
        try:
            ipaddress.IPv6Address(text)
        except ValueError as error:
            kind, message = "host_shape", "no name or address"
            raise PydanticCustomError(kind, message) from error
    return text


Host = Annotated[
    str,
    AfterValidator(_host),
    InWords('a name or an address alone, such as "192.168.1.2": the port is mqtt.port'),
]
"""A host name, an IPv4 or an IPv6 address (with its zone, if need be): no scheme, no port, no brackets."""
