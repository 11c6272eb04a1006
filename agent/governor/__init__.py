"""Does what the device can keep up with: hot, throttled, short of memory or behind, it transcribes in a cheaper way.

vitals, queue, inference ─▶ [governor: decides] ─▶ [steering: loads, exchanges, tells] ─▶ transcriber
                                   ladder: the ways there are, the best one first
utterances that nobody has time for ─▶ [spool: on disk] ─▶ transcribed when there is
"""
