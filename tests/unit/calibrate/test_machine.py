import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil

from agent.calibrate.candidates import REST_OF_AGENT_MB, cgroup_headroom_bytes, memory_budget_mb
from agent.calibrate.run import others_cpu
from agent.models.calibration import cpu_name, differences, fingerprint

MIB = 1 << 20


def group(folder: Path, limit: str, used_bytes: int, idle_bytes: int = 0) -> None:
    """A cgroup v2 with its memory files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used_bytes}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {idle_bytes}\n")


def test_the_tightest_group_above_this_process_counts(tmp_path: Path) -> None:
    """Its own has no limit here, but the one above has; file pages that nobody uses are as good as free."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/edgescribe.service\n")
    slices = tmp_path / "sys/fs/cgroup/system.slice"
    group(slices / "edgescribe.service", "max", 10 * MIB)
    group(slices, str(400 * MIB), 150 * MIB, idle_bytes=50 * MIB)
    group(tmp_path / "sys/fs/cgroup", str(900 * MIB), 200 * MIB)
    assert cgroup_headroom_bytes(tmp_path) == 300 * MIB


def test_in_a_container_the_top_group_counts(tmp_path: Path) -> None:
    """The path in /proc may be that of the host, which is not there."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/../../docker/1234\n")
    group(tmp_path / "sys/fs/cgroup", str(256 * MIB), 56 * MIB)
    assert cgroup_headroom_bytes(tmp_path) == 200 * MIB


def test_without_a_limit_only_what_is_available_counts(tmp_path: Path) -> None:
    """No cgroups, no limit: three quarters of the available memory, less the rest of the agent."""
    assert cgroup_headroom_bytes(tmp_path) is None
    expected_mb = 0.75 * psutil.virtual_memory().available / 1e6 - REST_OF_AGENT_MB
    assert abs(memory_budget_mb(tmp_path) - expected_mb) < 0.1 * expected_mb


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    """Never less than nothing."""
    group(tmp_path / "sys/fs/cgroup", str(100 * MIB), 120 * MIB)
    assert cgroup_headroom_bytes(tmp_path) == 0
    assert memory_budget_mb(tmp_path) == 0


def test_a_cpu_has_a_name_on_every_architecture(tmp_path: Path) -> None:
    """x86 says it; ARM says who made which part (0x41 0xd0b: a Cortex-A76)."""
    assert cpu_name(tmp_path) != ""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast CPU\n\nmodel name\t: Other\n")
    assert cpu_name(tmp_path) == "Fast CPU"
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n")
    assert cpu_name(tmp_path).endswith(" 0x41 0xd0b")


def test_what_others_take_of_the_cpu_is_noticed() -> None:
    """A process that works all the time is somebody else's, as long as it runs."""
    others_pct = others_cpu()
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        time.sleep(0.5)
        assert 0 < others_pct() <= 100
        child.kill()


def test_what_has_changed_is_named() -> None:
    """A card moved to another board, or an engine that was updated or removed, makes figures stale."""
    now = fingerprint()
    assert differences(now, now) == []
    assert "pywhispercpp" in now.engines
    then = replace(now, cores=now.cores + 2, engines={**now.engines, "pywhispercpp": "0.1", "gone": "1"})
    assert differences(then, now) == [
        f"the number of cores was {now.cores + 2} and is {now.cores}",
        "gone was 1 and is absent",
        f"pywhispercpp was 0.1 and is {now.engines['pywhispercpp']}",
    ]
