"""`edgescribe top`: what a running agent tells a person at the device itself, by a socket in its runtime folder."""
