"""Speech to text for Home Assistant's Assist, by the Wyoming protocol: others send sound, and get words back.

    server (sockets, threads) ──events──▶ conversation (decides) ──samples──▶ hearing ──utterances──▶ the engine

Off unless `assist.enabled`. The microphone of this device comes first: a request waits its turn in the same queue.
"""
