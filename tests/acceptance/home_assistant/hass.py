"""A real Home Assistant for the tests, installed once a clone below `.edgescribe/`, driven through its HTTP API.

2024.3 is the last series for Python 3.11. It knows component discovery and event entities, but not device discovery,
which came with 2024.11; the payload of that is held against its rules in `tests/unit/test_discovery.py`.
"""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.mosquitto import free_port

REPOSITORY: Final = Path(__file__).parents[3]
REQUIREMENTS: Final = ("setuptools", "homeassistant==2024.3.3", "josepy<2", "paho-mqtt==1.6.1")
START_S: Final = 240.0
"""The first start installs what its integrations need."""
AUTOMATIONS: Final = REPOSITORY / "docs" / "examples" / "home-assistant.yaml"
CONFIGURATION: Final = """\
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
config:
logger:
  default: warning
automation: !include automations.yaml
input_boolean:
  lamp:
light:
  - platform: template
    lights:
      kitchen:
        value_template: "{{{{ is_state('input_boolean.lamp', 'on') }}}}"
        turn_on:
          service: input_boolean.turn_on
          target: {{entity_id: input_boolean.lamp}}
        turn_off:
          service: input_boolean.turn_off
          target: {{entity_id: input_boolean.lamp}}
"""


def installed() -> Path:
    """The `hass` program, installed now if it is not yet."""
    folder = REPOSITORY / ".edgescribe" / "home-assistant"
    hass = folder / "bin" / "hass"
    if not hass.exists():
        venv.create(folder, with_pip=True)
        done = subprocess.run(
            [folder / "bin" / "pip", "install", "-q", *REQUIREMENTS], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.fail(f"Home Assistant cannot be installed: {done.stderr[-2_000:]}")
    return hass


class HomeAssistant:
    """One installation with a configuration of its own; `start` and `stop` as often as needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        folder.mkdir()
        (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=self._port), encoding="utf-8")
        shutil.copy(AUTOMATIONS, folder / "automations.yaml")

    def start(self) -> None:
        """Start it, and wait until it answers and has finished starting."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGESCRIBE_")}
        with (self._folder / "stdout").open("ab") as out:
            self._process = subprocess.Popen(
                [installed(), "-c", str(self._folder)], stdout=out, stderr=subprocess.STDOUT, env=environment
            )
        self._await_answer()

    def _await_answer(self) -> None:
        deadline_s = time.monotonic() + START_S
        while True:
            assert self._process
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"Home Assistant did not start: {self.log[-2_000:]}")
            try:
                if not self._token:
                    self._request("/api/onboarding")
                elif self.get("/api/config")["state"] == "RUNNING":
                    return
                if not self._token:
                    return
            except (OSError, KeyError):
                pass
            time.sleep(0.5)

    def onboard(self, broker_port: int) -> None:
        """Make an owner, log in, and add the MQTT integration."""
        client = f"http://127.0.0.1:{self._port}/"
        owner = {"client_id": client, "name": "o", "username": "o", "password": "o", "language": "en"}
        code = self._request("/api/onboarding/users", owner)["auth_code"]
        form = {"client_id": client, "grant_type": "authorization_code", "code": code}
        self._token = self._request("/auth/token", form, form=True)["access_token"]
        flow = self.post("/api/config/config_entries/flow", {"handler": "mqtt", "show_advanced_options": False})
        done = self.post(
            f"/api/config/config_entries/flow/{flow['flow_id']}", {"broker": "127.0.0.1", "port": broker_port}
        )
        assert done["type"] == "create_entry", done

    def stop(self) -> None:
        """End it in good order, so that its registries are written; idempotent."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def states(self) -> dict[str, dict[str, Any]]:
        """All states by entity id."""
        return {state["entity_id"]: state for state in self.get("/api/states")}

    def call(self, domain: str, service: str, **data: Any) -> None:
        """Call a service, as a button in its interface does."""
        self.post(f"/api/services/{domain}/{service}", data)

    @property
    def log(self) -> str:
        """Warnings and errors so far."""
        return (self._folder / "stdout").read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        """A GET request, logged in."""
        return self._request(path)

    def post(self, path: str, data: Mapping[str, Any]) -> Any:
        """A POST request, logged in."""
        return self._request(path, data)

    def _request(self, path: str, data: Mapping[str, Any] | None = None, *, form: bool = False) -> Any:
        body = None if data is None else (urllib.parse.urlencode(data) if form else json.dumps(data)).encode()
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=120.0) as answer:  # noqa: S310 - always http, always loopback
            return json.load(answer)
