"""Does what the device can keep up with: hot, throttled, short of memory or behind, it transcribes in a cheaper way.

vitals, queue, pace ─▶ [policy: decides] ─▶ [runner: loads and exchanges engines, reports] ─▶ transcriber
                          ladder: the profiles of this device, the best one first
utterances that the engine has no time for ─▶ [spool: on disk] ─▶ transcribed when there is time
"""
