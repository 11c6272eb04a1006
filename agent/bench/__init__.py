"""`edgescribe bench`: the error rate, speed and cost of each way to transcribe on this machine.

    manifests ─▶ clips ─▶ steps ─▶ raw.jsonl ─▶ summary ─▶ report: terminal · JSON · HTML
                          │  ▲
               one child process a system, one at work at a time

A *system* is an engine with a model and its options: one of our engines, or another library (a *peer*). Every clip goes
through all systems before the next clip does, so that other work on the machine slows all of them alike. Only ratios
within one run mean anything.
"""
