"""The first stage: from the source into a channel, and nothing else.

Whatever takes time belongs further down: this thread only reads and puts, so that the sound card never waits for us.
"""

from collections.abc import Callable

from agent.audio import Source
from agent.audio.frames import AudioFrame
from agent.channel import Channel


def capture(source: Source, frames: Channel[AudioFrame], alive: Callable[[], None] = lambda: None) -> None:
    """Move frames until the source ends or the channel is closed, then close the channel.

    `alive` is called for every frame; to be as quick as the rest of this.
    """
    try:
        while (frame := source.read()) is not None:
            alive()
            if not frames.put(frame):
                return
    finally:
        frames.close()
