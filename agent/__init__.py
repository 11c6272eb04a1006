"""edgescribe: on-device speech to text for the Raspberry Pi and the Jetson, published over MQTT.

    microphone ─▶ sources ─▶ vad ─▶ segmenter ─▶ engines ─▶ sinks ─▶ MQTT
                                                telemetry ──┘

`app.py` puts the stages together; `cli.py` holds the verbs; `config/` every setting.
"""

__version__ = "0.2.0"
