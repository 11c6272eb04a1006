"""From settings to detectors."""

import subprocess
import sys

from agent.config.settings import VadSettings
from agent.vad import create_detector
from agent.vad.energy import EnergyDetector, GatedDetector
from agent.vad.silero import SileroDetector


def test_each_setting_gives_its_detector() -> None:
    """Silero behind the gate by default, without it if so set, and the energy detector, which needs none."""
    assert isinstance(create_detector(VadSettings()), GatedDetector)
    assert isinstance(create_detector(VadSettings(gate=False)), SileroDetector)
    assert isinstance(create_detector(VadSettings(kind="energy")), EnergyDetector)


def test_listening_loads_no_inference_library() -> None:
    """Silero answers without onnxruntime and torch having been imported: small boards have no memory for them."""
    program = (
        "import sys, numpy\n"
        "from agent.config.settings import VadSettings\n"
        "from agent.vad import create_detector\n"
        "create_detector(VadSettings(gate=False)).probability(numpy.zeros(512, numpy.int16))\n"
        "print([name for name in ('onnxruntime', 'torch', 'ctranslate2', 'av') if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"
