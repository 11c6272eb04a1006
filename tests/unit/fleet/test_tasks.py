"""Expressions in the role's tasks, with what they get to see on a device."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from agent.commands.config import as_object
from agent.config.layers import load
from docs.ansible_role import ROLE

JINJA = NativeEnvironment()
JINJA.filters.update(
    {
        "from_json": json.loads,
        "ternary": lambda value, yes, no: yes if value else no,
        "regex_replace": lambda text, pattern, by: re.sub(pattern, by, text),
    }
)


def task(file: str, name: str) -> dict[str, Any]:
    """A task by its name."""
    (found,) = (
        item for item in yaml.safe_load((ROLE / "tasks" / file).read_text(encoding="utf-8")) if item["name"] == name
    )
    return dict(found)


def rendered(template: Any, **variables: Any) -> Any:
    """What Ansible makes of a value."""
    return JINJA.from_string(str(template)).render(**variables)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (
            {"msg": "non-zero return code", "stderr": "edgescribe: no such model\n", "stdout": ""},
            "edgescribe: no such model",
        ),
        ({"msg": "the device heard 'x'"}, "the device heard 'x'"),
        ({"msg": "non-zero return code", "stderr": "", "stdout": "x"}, "non-zero return code"),
        ({"stderr": "", "stdout": "ActiveState=failed"}, "ActiveState=failed"),
        ({}, "failed"),
    ],
)
def test_the_reason_is_what_the_command_said(result: dict[str, str], reason: str) -> None:
    """What Ansible says of a failed command, a non-zero return code, tells nobody anything."""
    template = task("rollback.yml", "Keep in mind what went wrong")["ansible.builtin.set_fact"]["edgescribe__reason"]
    said = rendered(template, ansible_failed_task={"name": "Gate"}, ansible_failed_result=result)
    assert said == f"Gate: {reason}"


def asked(config: str, folder: Path) -> dict[str, Any]:
    """Whom the gate asks for the golden utterance on the device `kitchen` with these settings."""
    file = folder / "config.toml"
    file.write_text(config, encoding="utf-8")
    password = folder / "mqtt-password"
    password.write_text("secret", encoding="utf-8")
    password.chmod(0o600)
    own = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    seen: dict[str, Any] = {
        "edgescribe__in_force": {"stdout": json.dumps(as_object(load(file)))},
        "edgescribe__key_credential": own["edgescribe__key_credential"],
        "ansible_facts": {"hostname": "Kitchen"},
        "omit": "omitted",
    }
    for name in ("edgescribe__mqtt", "edgescribe__id"):
        seen[name] = rendered(own[name], **seen)
    module = task("gate.yml", "Ask for the golden utterance")["edgescribe.fleet.golden_utterance"]
    return {name: rendered(value, **seen) for name, value in module.items() if "edgescribe__" in str(value)}


def test_the_gate_asks_the_broker_that_the_device_is_set_to(tmp_path: Path) -> None:
    """After going back that is another one than the inventory says."""
    config = '[mqtt]\nhost = "old.lan"\nport = 8884\nusername = "cook"\n[mqtt.tls]\nenabled = true\n'
    config += 'ca_file = "/etc/edgescribe/ca.crt"\ncert_file = "/etc/edgescribe/device.crt"\n'
    config += 'key_file = "/run/credentials/edgescribe.service/device-key"\n[device]\nid = "old-kitchen"\n'
    assert asked(config, tmp_path) == {
        "host": "old.lan",
        "port": 8884,
        "device_id": "old-kitchen",
        "username": "cook",
        "tls": True,
        "ca_file": "/etc/edgescribe/ca.crt",
        "cert_file": "/etc/edgescribe/device.crt",
        "key_file": "/etc/edgescribe/device.key",  # the service alone can see its credential
    }


@pytest.mark.parametrize(("tls", "port"), [("true", 8883), ("false", 1883)])
def test_what_is_not_set_is_what_the_agent_makes_of_it(tls: str, port: int, tmp_path: Path) -> None:
    """Port, user and id are the agent's defaults."""
    found = asked(f'[mqtt]\nhost = "lan"\n[mqtt.tls]\nenabled = {tls}\n', tmp_path)
    assert (found["port"], found["device_id"], found["username"]) == (port, "kitchen", "kitchen")
    assert {found[name] for name in ("ca_file", "cert_file", "key_file")} == {"omitted"}
