"""Diagnosis of a device: `facts` looks, `checks` and `configuration` judge, `edgescribe doctor` and `check` print."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    status: Status
    subject: str
    text: str
    remedy: str = ""
    """The action that repairs it; empty if all is well, or if the text names it."""
