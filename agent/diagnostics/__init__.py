"""What this machine is, what is missing, and what to do: `facts` looks, `checks` judges, `edgescribe doctor` prints."""

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
    """What to do about it; empty where all is well."""
