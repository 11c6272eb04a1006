"""`edgescribe calibrate`: which engine, model, quantisation and number of threads suit *this* machine?

    models on the device ─▶ candidates ─▶ measure ─▶ front ─▶ choice ─▶ calibration.json
                                          │  ▲                               │
                              a child process each, one at work       engine.kind = "auto"

The figures come from the bundled sentences; the rule that chooses stands in `front.py`, and its reasons in
docs/decisions/0008-calibration.md.
"""
