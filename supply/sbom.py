"""Writes the parts list of a wheelhouse, for scanners of known holes: CycloneDX 1.5, https://cyclonedx.org/docs/1.5/json/."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from supply.licences import EMBEDDED, licence
from supply.target import Target
from supply.wheel import Wheel

_NAMESPACE: Final = uuid.UUID("5f0f4a2e-6c3a-5c1e-9a53-0c6f3c0a7d11")
_AGENT: Final = "edgescribe"


def parts_list(wheels: Sequence[Wheel], target: Target, epoch_s: int) -> str:
    """Return the JSON text: the same for the same wheels, time stamp `epoch_s` and target.

    The agent is the subject (`metadata.component`); the others are its parts.
    """
    agent = next(wheel for wheel in wheels if wheel.name == _AGENT)
    present = {wheel.name: _purl(wheel) for wheel in wheels}
    content = "\n".join(wheel.sha256 for wheel in wheels)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {**_component(agent), "type": "application"},
            "properties": [
                {"name": f"edgescribe:{name}", "value": value}
                for name, value in (("arch", target.arch), ("cpu", target.cpu), ("python", target.python))
            ],
        },
        "components": [_component(wheel) for wheel in wheels if wheel is not agent],
        "dependencies": [
            {"ref": _purl(wheel), "dependsOn": [present[name] for name in wheel.requires if name in present]}
            for wheel in wheels
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _component(wheel: Wheel) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(wheel),
        "name": wheel.name,
        "version": wheel.version,
        "purl": _purl(wheel),
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": [_licence(licence(wheel))],
        "properties": [{"name": "edgescribe:file", "value": wheel.path.name}],
    }
    if wheel.contains:
        component["components"] = [
            {"type": "library", "name": name, "version": version, "licenses": [_licence(EMBEDDED.get(name, "unknown"))]}
            for name, version in wheel.contains.items()
        ]
    if wheel.home:
        component["externalReferences"] = [{"type": "website", "url": wheel.home}]
    return component


def _licence(said: str) -> dict[str, Any]:
    """Return an expression if SPDX has it, else the package's own words."""
    try:
        return {"expression": canonicalize_license_expression(said)}
    except InvalidLicenseExpression:
        return {"license": {"name": said}}


def _purl(wheel: Wheel) -> str:
    """Return the package URL, https://github.com/package-url/purl-spec, which also names the part in the document."""
    return f"pkg:pypi/{wheel.name}@{quote(wheel.version, safe='')}"
