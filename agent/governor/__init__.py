"""Lets the device transcribe in a cheaper way while it is hot, throttled, short of power or memory, or behind.

vitals, queue, pace ─▶ [policy: decides] ─▶ [runner: loads and exchanges engines, reports] ─▶ transcriber
                          ladder: the profiles of this device, the best one first
utterances without time on the engine ─▶ [spool: on disk] ─▶ transcribed when there is time
"""
