"""What a confined process can no longer do; each test confines a fresh interpreter for good, and asks it."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.asr.sandbox import readable

PREAMBLE = """
import errno, json, os, socket, sys, threading
from pathlib import Path
from agent.asr.sandbox import confine, readable
def tried(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
confined = confine(readable(Path(sys.argv[1])), [Path("/dev")])
"""


def ask(question: str, model: Path) -> Any:
    """What a process that was confined to `model` makes of an expression."""
    code = f"{PREAMBLE}\nprint(json.dumps({question}))"
    result = subprocess.run(
        [sys.executable, "-I", "-c", code, str(model)], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that the process may read."""
    path = tmp_path / "models" / "model.bin"
    path.parent.mkdir()
    path.write_text("weights")
    return path


def need(part: str, model: Path) -> None:
    """Skip where this kernel has not got it."""
    if not ask(f"confined.{part}", model):
        pytest.skip(f"this kernel cannot confine: {part}")


def test_nothing_has_started_a_thread_before(model: Path) -> None:
    """A thread from before would stay unconfined: numpy starts some when it is imported."""
    assert ask("['numpy' in sys.modules, threading.active_count(), len(os.listdir('/proc/self/task'))]", model) == [
        False,
        1,
        1,
    ]


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"])
def test_no_network(family: str, model: Path) -> None:
    """A socket to anywhere but this machine is refused where it is made."""
    need("network", model)
    assert ask(f"tried(socket.socket, socket.{family}, socket.SOCK_RAW)", model) == "EPERM"


def test_threads_that_start_later_have_no_network_either(model: Path) -> None:
    """The filter is handed on."""
    need("network", model)
    question = """
    (lambda answers: [
        (thread := threading.Thread(target=lambda: answers.append(tried(socket.socket, socket.AF_INET)))).start(),
        thread.join(), answers][-1])([])
    """.strip()
    assert ask(question, model) == ["EPERM"]


def test_a_local_socket_still_opens(model: Path) -> None:
    """The filter tells families apart; CUDA speaks to its own service."""
    assert ask("tried(socket.socket, socket.AF_UNIX)", model) == "done"


def test_no_other_program(model: Path) -> None:
    """What took the process over starts no shell."""
    need("network", model)
    assert ask('tried(os.execv, "/bin/sh", ["sh"])', model) == "EPERM"


def test_the_model_can_be_read_and_what_lies_beside_it_cannot(model: Path) -> None:
    """A password, another model, the home of somebody: none of it is within reach."""
    need("files", model)
    secret = model.parent / "mqtt-password"
    secret.write_text("hunter2")
    assert ask("tried(Path(sys.argv[1]).read_text)", model) == "done"
    assert ask(f"tried(Path({str(secret)!r}).read_text)", model) == "EACCES"
    assert ask('tried(Path("/etc/passwd").read_text)', model) == "EACCES"


def test_nothing_can_be_written(model: Path) -> None:
    """Not even the model."""
    need("files", model)
    assert ask('tried(Path(sys.argv[1]).write_text, "")', model) == "EACCES"
    assert ask(f'tried(Path({str(model.parent / "new")!r}).write_text, "")', model) == "EACCES"


def test_its_parent_cannot_be_looked_into(model: Path) -> None:
    """The environment of a process of the same user is closed to it, as its memory is."""
    need("files", model)
    assert ask('tried(Path(f"/proc/{os.getppid()}/environ").read_bytes)', model) == "EACCES"


def test_its_parent_cannot_be_killed_by_it(model: Path) -> None:
    """A process that was taken over does not take the agent with it, where the kernel can tell (Linux 6.12)."""
    need("files", model)
    if tuple(int(part) for part in platform.release().split(".")[:2]) < (6, 12):
        pytest.skip("Landlock knows signals from Linux 6.12 on")
    assert ask("tried(os.kill, os.getppid(), 0)", model) == "EPERM"


def test_it_is_the_first_to_go_and_leaves_nothing_behind(model: Path) -> None:
    """Out of memory takes it before the agent; a crash writes no core, which would hold what was said."""
    score, core = ask(
        '[int(Path("/proc/self/oom_score_adj").read_text()),'
        ' __import__("resource").getrlimit(__import__("resource").RLIMIT_CORE)[0]]',
        model,
    )
    assert score == 500
    assert core == 0


def test_what_it_may_read_holds_no_secrets() -> None:
    """Neither the settings nor the folder of credentials lie below any of the allowed folders."""
    allowed = readable(None)
    for secret in ("/etc/edgescribe/config.toml", "/run/credentials/edgescribe.service/mqtt-password"):
        assert not any(Path(secret).is_relative_to(path) for path in allowed)
