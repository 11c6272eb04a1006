#!/usr/bin/python
"""Ask a device over MQTT to transcribe its bundled sentence, and judge the answer here.

Runs on the device, with the device's own rights at the broker, so that it works for pushed and for pulled rollouts. It
speaks just enough MQTT 3.1.1 (http://docs.oasis-open.org/mqtt/mqtt/v3.1.1/) with the standard library: the judge shall
not come with the release that is judged.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_utterance
short_description: Prove over MQTT that an edgescribe device understands speech
description:
  - Publishes the command C(golden_utterance) to a device and waits for its reply.
  - The words of the reply are compared here; the device's own opinion of them does not count.
version_added: 0.1.0
author:
  - The edgescribe authors (@edgescribe)
options:
  host:
    description: Name or address of the broker.
    type: str
    required: true
  port:
    description: Its port.
    type: int
    required: true
  device_id:
    description: The id of the device.
    type: str
    required: true
  username:
    description: Name at the broker. Only used with a password.
    type: str
  password_file:
    description: File on the device that holds the password. Not used if it is empty or missing.
    type: path
  tls:
    description: Encrypt the connection.
    type: bool
    default: false
  ca_file:
    description: Authorities to trust. Default are the system's.
    type: path
  cert_file:
    description: Certificate of the device.
    type: path
  key_file:
    description: Its private key.
    type: path
  sentence:
    description: The words of the recording.
    type: str
    required: true
  min_score:
    description: Share of its words that has to come back right.
    type: float
    default: 0.8
  timeout_s:
    description: How long to wait for the reply, in seconds.
    type: float
    default: 75.0
"""

EXAMPLES = r"""
- name: Ask for the golden utterance
  edgescribe.fleet.golden_utterance:
    host: broker.lan
    port: 1883
    device_id: kitchen
    username: kitchen
    password_file: /etc/edgescribe/mqtt-password
    sentence: Please hold while we try to connect you.
"""

RETURN = r"""
text:
  description: What the device understood.
  returned: when it answered
  type: str
score:
  description: Share of the words that are right.
  returned: when it answered
  type: float
model:
  description: The model that it used.
  returned: when it answered
  type: str
rtf:
  description: Inference time over the length of the recording.
  returned: when it answered
  type: float
took_s:
  description: Seconds from the first attempt to connect until the answer.
  returned: always
  type: float
"""

import contextlib
import json
import os
import re
import socket
import ssl
import struct
import time
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90, 0xC0
USERNAME, PASSWORD, CLEAN = 0x80, 0x40, 0x02
KEEPALIVE_S = 20
ASK_AGAIN_S = 20.0
CONNECT_AGAIN_S = 2.0
ANSWERED = ("ok", "golden_mismatch")
ASK_LATER = ("busy", "unavailable")
REFUSED = {4: "user name or password is wrong", 5: "not authorised"}


class UnansweredError(Exception):
    """There is no good answer, and there will be none."""


class Broker:
    """One connection to the broker."""

    def __init__(self, parameters: dict[str, Any], deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._buffer = b""
        plain = socket.create_connection((parameters["host"], parameters["port"]), timeout=5.0)
        if parameters["tls"]:
            context = ssl.create_default_context(cafile=parameters["ca_file"])
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as the agent itself
            if parameters["cert_file"]:
                context.load_cert_chain(parameters["cert_file"], parameters["key_file"])
            plain = context.wrap_socket(plain, server_hostname=parameters["host"])
        self._socket = plain
        self._log_in(parameters["device_id"], parameters["username"], _password(parameters["password_file"]))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def subscribe(self, *topics: str) -> None:
        """Listen to these topics, QoS 0."""
        self._send(SUBSCRIBE, struct.pack(">H", 1) + b"".join(_text(topic) + b"\0" for topic in topics))

    def publish(self, topic: str, payload: str) -> None:
        """Publish, QoS 0."""
        self._send(PUBLISH, _text(topic) + payload.encode())

    def messages(self, quiet_s: float) -> Iterator[tuple[str, bytes] | None]:
        """Yield topics and payloads until the deadline, and None after each `quiet_s` seconds without a message."""
        while (left_s := self._deadline_s - time.monotonic()) > 0:
            packet = self._receive(min(quiet_s, left_s))
            if packet is None:
                self._send(PINGREQ, b"")
                yield None
            elif packet[0] & 0xF0 == PUBLISH:
                (length,) = struct.unpack_from(">H", packet[1])
                rest = packet[1][2 + length :]
                yield packet[1][2 : 2 + length].decode(), rest[2:] if packet[0] & 0x06 else rest

    def _log_in(self, device_id: str, username: str | None, password: str) -> None:
        flags = CLEAN | (USERNAME | PASSWORD if username and password else 0)
        names = _text(f"{device_id}-gate-{os.getpid()}")
        if username and password:
            names += _text(username) + _text(password)
        self._send(CONNECT, _text("MQTT") + bytes([4, flags]) + struct.pack(">H", KEEPALIVE_S) + names)
        answer = self._receive(10.0)
        if answer is None or answer[0] != CONNACK:
            raise OSError("the broker does not answer")
        if answer[1][1]:
            raise UnansweredError(f"the broker refuses the device: {REFUSED.get(answer[1][1], f'code {answer[1][1]}')}")

    def _send(self, kind: int, body: bytes) -> None:
        length, size = b"", len(body)
        while True:
            size, digit = divmod(size, 128)
            length += bytes([digit | (0x80 if size else 0)])
            if not size:
                break
        self._socket.sendall(bytes([kind]) + length + body)

    def _receive(self, within_s: float) -> tuple[int, bytes] | None:
        """The next packet: its first byte and its body; None if none comes in time."""
        until_s = time.monotonic() + within_s
        while True:
            if packet := self._next_in_buffer():
                return packet
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            self._socket.settimeout(left_s)
            with contextlib.suppress(TimeoutError, socket.timeout, ssl.SSLWantReadError):
                data = self._socket.recv(65_536)
                if not data:
                    raise OSError("the broker has hung up")
                self._buffer += data

    def _next_in_buffer(self) -> tuple[int, bytes] | None:
        size, shift, at = 0, 0, 1
        while True:
            if len(self._buffer) <= at:
                return None
            digit = self._buffer[at]
            size |= (digit & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not digit & 0x80:
                break
        if len(self._buffer) < at + size:
            return None
        packet = self._buffer[0], self._buffer[at : at + size]
        self._buffer = self._buffer[at + size :]
        return packet


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _password(path: str | None) -> str:
    file = Path(path) if path else None
    return file.read_text(encoding="utf-8").strip() if file and file.exists() else ""


def score(expected: str, heard: str) -> float:
    """Share of the expected words that are in `heard`, in their order; added words lower it."""
    said, written = (re.findall(r"[\w']+", text.lower()) for text in (expected, heard))
    right = sum(block.size for block in SequenceMatcher(None, said, written, autojunk=False).get_matching_blocks())
    return max(0.0, right - max(0, len(written) - len(said))) / len(said)


def ask(broker: Broker, device_id: str, run: str) -> dict[str, Any]:
    """The reply of the device; asked again whenever it comes online, and when it leaves us waiting.

    Raises:
        UnansweredError: it says that it cannot, or time is up.
    """
    base = f"edgescribe/v1/{device_id}"
    broker.subscribe(f"{base}/status", f"{base}/reply")
    for message in broker.messages(ASK_AGAIN_S):
        if message is None or message == (f"{base}/status", b"online"):
            broker.publish(f"{base}/cmd/golden_utterance", json.dumps({"id": f"{run}-{time.monotonic_ns()}"}))
        elif message[0] == f"{base}/reply":
            reply = _reply(message[1])
            # A device that may not be asked at all does not look at the id.
            mine = str(reply.get("id") or run).startswith(run) and reply.get("command") == "golden_utterance"
            if mine and reply.get("code") in ANSWERED:
                return reply
            if mine and reply.get("code") not in ASK_LATER:
                raise UnansweredError(f"{reply.get('code')}: {reply.get('msg')}")
    raise UnansweredError("no answer in time")


def _reply(payload: bytes) -> dict[str, Any]:
    """What others with this device's password may have sent there is none."""
    with contextlib.suppress(ValueError):
        if isinstance(reply := json.loads(payload), dict):
            return reply
    return {}


def converse(parameters: dict[str, Any]) -> dict[str, Any]:
    """Connect, and connect again while there is time; return the reply.

    Raises:
        UnansweredError: the broker or the device refuses, or time is up.
    """
    deadline_s = time.monotonic() + parameters["timeout_s"]
    run = f"gate-{os.getpid()}-{time.time_ns()}"
    while True:
        try:
            broker = Broker(parameters, deadline_s)
            try:
                return ask(broker, parameters["device_id"], run)
            finally:
                broker.close()
        except OSError as error:  # a broker that cannot be reached, or hung up
            if time.monotonic() + CONNECT_AGAIN_S > deadline_s:
                raise UnansweredError(f"no broker at {parameters['host']}:{parameters['port']}: {error}") from error
            time.sleep(CONNECT_AGAIN_S)


def main() -> None:
    """Ansible calls this."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "device_id": {"type": "str", "required": True},
            "username": {"type": "str"},
            "password_file": {"type": "path", "no_log": False},
            "tls": {"type": "bool", "default": False},
            "ca_file": {"type": "path"},
            "cert_file": {"type": "path"},
            "key_file": {"type": "path", "no_log": False},
            "sentence": {"type": "str", "required": True},
            "min_score": {"type": "float", "default": 0.8},
            "timeout_s": {"type": "float", "default": 75.0},
        },
        supports_check_mode=False,
    )
    began_s = time.monotonic()
    try:
        reply = converse(module.params)
    except UnansweredError as error:
        module.fail_json(msg=f"no golden utterance from the device: {error}", took_s=time.monotonic() - began_s)
    result = reply.get("result") or {}
    heard, sentence = result.get("text", ""), module.params["sentence"]
    found = {
        "text": heard,
        "score": round(score(sentence, heard), 3),
        "model": result.get("model"),
        "rtf": result.get("rtf"),
        "took_s": round(time.monotonic() - began_s, 1),
    }
    if found["score"] < module.params["min_score"]:
        module.fail_json(msg=f"the device heard {heard!r} instead of {sentence!r}", **found)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
