"""The first stage: from the source into a channel, and nothing else.

Whatever takes time belongs further down: this thread only reads and puts, so that the sound card never waits for us.
"""

import logging
from collections.abc import Callable

from agent.audio import AudioFrame
from agent.channel import Channel
from agent.errors import SourceError
from agent.sources import Source

log = logging.getLogger(__name__)


def capture(
    source: Source,
    frames: Channel[AudioFrame],
    alive: Callable[[], None] = lambda: None,
    *,
    is_recording: bool = False,
) -> int:
    """Move frames until the source ends or the channel is closed, then close the channel; return the exit status.

    A recording that cannot be read to its end ends like others: its words up to there are transcribed.

    Args:
        source: What is read.
        frames: What the frames are put into.
        alive: Called for every frame; to be as quick as the rest of this.
        is_recording: Whether the source is no microphone.

    Raises:
        SourceError: the microphone is of no use.
    """
    try:
        while (frame := source.read()) is not None:
            alive()
            if not frames.put(frame):
                break
    except SourceError as error:
        if not is_recording:
            raise
        log.error(str(error))  # noqa: TRY400 - the message says it all
        return error.exit_code
    finally:
        frames.close()
    return 0
