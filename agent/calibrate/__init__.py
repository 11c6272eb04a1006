"""`edgescribe calibrate`: find the engine, model, quantisation and number of threads that suit this machine.

    models on the device ─▶ candidates ─▶ measure ─▶ front ─▶ choice ─▶ calibration.json ─▶ engine.kind = "auto"
                                          │  ▲
                              one child process at a time

The clips are the bundled sentences. `agent/models/choice.py` makes the choice. docs/decisions/0008-calibration.md
explains it.
"""
