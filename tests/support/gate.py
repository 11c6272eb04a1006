"""A door between a device and its broker that the test can shut, or hold so that nothing gets through either way."""

import contextlib
import socket
import threading

from tests.support.mosquitto import free_port


class Gate:
    """Relays TCP from a port of its own to `upstream_port`. Shut, it refuses connections; held, it swallows all sound.

    Held, the peers still acknowledge TCP segments: it is the half-open connection that only a keep-alive notices.
    """

    def __init__(self, upstream_port: int) -> None:
        self.port = free_port()
        self.upstream_port = upstream_port
        """Where the broker itself listens."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._answering = threading.Event()
        self._answering.set()
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Let connections through."""
        self._flowing.set()
        self._answering.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), name="gate", daemon=True).start()

    def hold(self) -> None:
        """Keep the connections, but pass nothing on."""
        self._flowing.clear()

    def hold_answers(self) -> None:
        """Let the device's words through, but nothing that the broker says."""
        self._answering.clear()

    def shut(self) -> None:
        """Break all connections and refuse new ones; idempotent."""
        if self._listener is not None:
            # Only shutdown wakes the thread that is in accept.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._sockets.clear()
        self._flowing.set()
        self._answering.set()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                device, _ = listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.upstream_port))
            except OSError:
                device.close()
                continue
            self._sockets += [device, broker]
            for way in ((device, broker, self._flowing), (broker, device, self._answering)):
                threading.Thread(target=self._pump, args=way, name="gate", daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, passing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flowing.wait()
                passing.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
