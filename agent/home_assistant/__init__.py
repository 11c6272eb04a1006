"""Announcing the device to Home Assistant by MQTT discovery."""
