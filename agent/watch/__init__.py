"""What `edgescribe watch` knows and shows of a fleet, as any subscriber could: by the contract of docs/mqtt.md."""
