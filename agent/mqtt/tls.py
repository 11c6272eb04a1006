"""TLS for the link to the broker, and what its errors mean."""

import ssl
from datetime import UTC, datetime
from typing import Final

from agent.config.settings import TlsSettings
from agent.errors import ConfigError
from agent.mqtt.reconnect import Cause

_DATES: Final = {9, 10}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (x509_vfy.h)."""
CLOCK_REMEDY: Final = "set this device's clock, or renew the broker's certificate if the clock is right"


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave it open."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is the library's
        """Shake hands.

        Raises:
            ssl.SSLError: it failed, be it that the other end broke it off.
        """
        try:
            super().do_handshake(block)
        except ConnectionError as error:
            self.close()
            raise ssl.SSLEOFError(error.errno, error.strerror) from error
        except OSError:
            self.close()
            raise


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer that verifies the broker's certificate and name.

    Raises:
        ConfigError: a file is missing or not a PEM file of the right kind.
    """
    context = ssl.create_default_context()
    try:
        if tls.ca_file:
            # Only this authority then, not the system's hundred as well.
            context = ssl.create_default_context(cafile=tls.ca_file)
            # From Python 3.13 on, authorities without extensions that many guides leave out would be refused.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:
        files = ", ".join(str(path) for path in (tls.ca_file, tls.cert_file, tls.key_file) if path)
        remedy = "each must be a readable PEM file, and the key must fit the certificate"
        msg = f"mqtt.tls: cannot use {files} ({error.strerror or error}): {remedy}"
        raise ConfigError(msg) from error
    context.sslsocket_class = _TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def tls_cause(error: ssl.SSLError) -> Cause:
    """Which side does not accept the other, and why."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Cause.DATES if error.verify_code in _DATES else Cause.UNTRUSTED
    return Cause.CERTIFICATE if is_alert(str(error)) else Cause.NO_TLS


def is_alert(text: str) -> bool:
    """An alert is what the broker thinks of us; with TLS 1.3 it comes after the handshake."""
    return "ALERT" in text.upper()


def tls_reason(error: ssl.SSLError) -> str:
    """What is wrong, in words; where it is about dates, with the time that this device's clock shows."""
    if isinstance(error, ssl.SSLCertVerificationError):
        now = f"; this device's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        return error.verify_message + (now if error.verify_code in _DATES else "")
    # `reason` is there only where OpenSSL has made the error.
    return (getattr(error, "reason", None) or error.strerror or str(error)).lower().replace("_", " ")
