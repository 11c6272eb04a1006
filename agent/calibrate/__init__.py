"""`edgescribe calibrate`: which engine, model, quantisation and number of threads suit *this* machine?

    models on the device ─▶ candidates ─▶ measure ─▶ front ─▶ choice ─▶ calibration.json ─▶ engine.kind = "auto"
                                          │  ▲
                              one child process at a time

The figures come from the bundled sentences; the rule that chooses stands in `agent/models/choice.py`, and its reasons
in docs/decisions/0008-calibration.md.
"""
