"""Free ports on loopback."""

import socket


def free_port() -> int:
    """A port that was free a moment ago; good enough for tests, which do not compete for it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
