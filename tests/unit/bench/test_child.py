import subprocess
import sys

BARE = """
import sys
for name in ("soundfile", "soxr", "pydantic", "rich", "psutil", "paho"):
    sys.modules[name] = None
import agent.bench.child
import agent.bench.peers
"""


def test_the_child_needs_nothing_but_numpy() -> None:
    """A peer may live in an interpreter that has none of our dependencies."""
    done = subprocess.run([sys.executable, "-c", BARE], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
