"""A candidate in a child process of its own, for `measure.Survey`: the benchmark's process, driven clip by clip."""

from pathlib import Path

from agent.bench.clips import Clip, load_pcm
from agent.bench.process import SystemProcess
from agent.bench.systems import Adapter, System
from agent.calibrate.measure import Sample
from agent.models.calibration_records import Candidate

_MB = 1_000_000


class ProcessTrial:
    """Implements `measure.Trial`. Between clips its process is stopped, so that it costs the others nothing.

    Args:
        candidate: What to load.
        model_path: Its verified model.
        language: In which it decodes: `en`, as the clips are English, or `auto`, if detecting it is part of the work.
        limit_s: Seconds that loading may take.

    Raises:
        AgentError: it cannot be loaded.
    """

    def __init__(self, candidate: Candidate, model_path: Path, language: str, limit_s: float) -> None:
        options = {"threads": str(candidate.threads), "language": language}
        system = System(str(candidate), Adapter(candidate.engine), candidate.model, options)
        self._process = SystemProcess(system, model_path, limit_s=limit_s)
        self.load_s = self._process.load_s

    def transcribe(self, clip: Clip, limit_s: float) -> Sample:
        """Put one clip through it."""
        answer = self._process.transcribe(load_pcm(clip), clip.language, limit_s)
        return Sample(answer.text, answer.wall_s, answer.cpu_s, answer.peak_rss_bytes // _MB)

    def close(self) -> None:
        """End the process; idempotent."""
        self._process.close()
