"""How much memory a model takes."""

from typing import Final

PROCESS_MB: Final = {"tiny": 110, "base": 131, "small": 200}
"""Memory of the process without the ggml file, by Whisper size: tiny and base measured, small reckoned."""
CTRANSLATE2_MB: Final = {"tiny": 258, "base": 349, "small": 800}
"""Memory of the process with an int8 model of CTranslate2; likewise."""
OTHER_PROCESS_MB: Final = 300


def memory_need_mb(size: str, size_bytes: int, *, ctranslate2: bool) -> int:
    """Return about how much the agent takes with a model, all included.

    Args:
        size: Whisper's size class; empty for a user's own file.
        size_bytes: Size of its files.
        ctranslate2: It is a CTranslate2 folder, and no ggml file.
    """
    file_mb = size_bytes // 1_000_000
    if ctranslate2:
        return CTRANSLATE2_MB.get(size, OTHER_PROCESS_MB + file_mb)
    return PROCESS_MB.get(size, OTHER_PROCESS_MB) + file_mb
