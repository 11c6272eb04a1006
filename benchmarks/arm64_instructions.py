"""How many instructions an ARM CPU executes for one utterance, by CPU class and model.

    python -m benchmarks.arm64_instructions

Instructions are not seconds, but they are the same on every machine and every day, and need no board: qemu-user counts
them. Wants root, `make wheelhouse` for the classes, and the Debian packages debootstrap, qemu-user, qemu-user-static.
The first run makes an arm64 Debian and installs the wheelhouses in it (some minutes each).
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.deploy.arm64.root import foreign_programs, inside, make_root, missing

FOLDER = REPOSITORY / "tests/deploy/arm64"
ROOT = REPOSITORY / ".edgescribe/arm64/root"
QEMU = Path("/counting")
"""In the root: this machine's qemu with its libraries, and the plug-in."""
CPU = "cortex-a76"
"""It can run both classes."""
CLASSES = ("armv8-a", "cortex-a76")
TIMES = (1, 2)
"""Utterances in one process; the difference is one utterance without loading."""

PROGRAM = """
import sys
from pathlib import Path
import soundfile
from agent.audio.frames import Utterance
from agent.config.settings import WhisperCppSettings
from agent.asr import create_engine
model, clip, times = sys.argv[1:]
pcm, rate_hz = soundfile.read(clip, dtype="int16")
assert rate_hz == 16_000
engine = create_engine(WhisperCppSettings(model=model, threads=1), next(Path("/models", model).glob("*.bin")))
for _ in range(int(times)):
    utterance = Utterance("01COUNTED", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))
    print(engine.transcribe([utterance])[0].text)
"""


def main() -> int:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=REPOSITORY / "tests/data/speech/en_dir-intro.flac", help="16 kHz")
    parser.add_argument("--models", nargs="+", default=["tiny.en-q8_0", "tiny.en-q4_0", "tiny.en-q5_1"])
    parser.add_argument("--store", type=Path, default=REPOSITORY / ".edgescribe/test-models", help="where they lie")
    args = parser.parse_args()
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    with foreign_programs():
        make_root(ROOT)
        prepare(args.clip, args.models, args.store)
        print(f"| {args.clip.name} | {' | '.join(CLASSES)} | ratio |\n|---|{'---|' * len(CLASSES)}---|", flush=True)
        for model in args.models:
            counts = [instructions(cpu, model) for cpu in CLASSES]
            figures = " | ".join(f"{count / 1e9:.2f} G" for count in counts)
            print(f"| {model} | {figures} | {counts[1] / counts[0]:.2f} |", flush=True)
    return 0


def prepare(clip: Path, models: list[str], store: Path) -> None:
    """Put the clip, models, wheelhouses and a counting qemu into the root."""
    shutil.copyfile(clip, ROOT / "clip.flac")
    for model in models:
        shutil.copytree(store / model, ROOT / "models" / model, dirs_exist_ok=True)
    for cpu in CLASSES:
        name = f"aarch64-{cpu}"
        shutil.copytree(REPOSITORY / "wheelhouse" / name, ROOT / "wheelhouse" / name, dirs_exist_ok=True)
        install = (
            f"cd /wheelhouse/{name} && cmp -s requirements.txt /opt/{cpu}/counted || {{ "
            f"python3 -m venv --clear /opt/{cpu} && "
            f"/opt/{cpu}/bin/pip install --no-index --find-links . --require-hashes -r requirements.txt && "
            f"cp requirements.txt /opt/{cpu}/counted; }}"
        )
        done = inside(ROOT, ["sh", "-c", install], CPU, {})
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
    here = ROOT / QEMU.relative_to("/")
    here.mkdir(exist_ok=True)
    qemu = shutil.which("qemu-aarch64")
    if qemu is None:
        raise SystemExit("qemu-aarch64 is missing: apt install qemu-user")
    linked = subprocess.run(["ldd", qemu], capture_output=True, text=True, check=True).stdout
    for path in [qemu, *re.findall(r"(/\S+) \(0x", linked)]:
        shutil.copy(path, here)
    plugin = [FOLDER / "instructions.c", "-o", here / "instructions.so"]
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", *plugin], check=True)


def instructions(cpu: str, model: str) -> int:
    """Of one utterance, with the wheelhouse for `cpu`."""
    first, second = (_executed(cpu, model, times) for times in TIMES)
    return second - first


def _executed(cpu: str, model: str, times: int) -> int:
    loader = [f"{QEMU}/ld-linux-x86-64.so.2", "--library-path", str(QEMU)]
    qemu = [f"{QEMU}/qemu-aarch64", "-cpu", CPU, "-plugin", f"{QEMU}/instructions.so", "-d", "plugin"]
    python = [f"/opt/{cpu}/bin/python", "-c", PROGRAM, model, "/clip.flac", str(times)]
    done = inside(ROOT, [*loader, *qemu, *python], CPU, {"OPENBLAS_NUM_THREADS": "1"})
    counted = re.search(r"instructions: (\d+)", done.stderr)
    if done.returncode or counted is None:
        raise SystemExit(f"{cpu}, {model}: {done.stdout}{done.stderr}")
    print(f"{cpu}, {model}, {times}: {counted[1]} {done.stdout.splitlines()[-1]!r}", file=sys.stderr, flush=True)
    return int(counted[1])


if __name__ == "__main__":
    sys.exit(main())
