"""The first stage: from the source into a channel, and nothing else.

Whatever takes time belongs further down: this thread only reads and puts, so that the sound card never waits for us.
"""

from agent.audio import AudioFrame
from agent.channel import Channel
from agent.sources import Source


def capture(source: Source, frames: Channel[AudioFrame]) -> None:
    """Move frames until the source ends or the channel is closed, then close the channel."""
    try:
        while (frame := source.read()) is not None:
            if not frames.put(frame):
                return
    finally:
        frames.close()
