"""Put this folder on PYTHONPATH and every Python process refuses to reach beyond this machine, and says so in a log."""

import os
import socket

LOG = os.environ.get("PULIB_NETWORK_LOG")
LOCAL = ("127.", "localhost", "::1", "0.0.0.0")


def _guard(name, call, host_of):
    def guarded(*args, **kwargs):
        host = host_of(args)
        if isinstance(host, bytes):
            host = host.decode()
        if host is not None and not str(host).startswith(LOCAL):
            if LOG:
                with open(LOG, "a") as log:
                    log.write(f"{name} {host}\n")
            raise OSError(f"network use is not allowed here: {name} {host}")
        return call(*args, **kwargs)

    return guarded


def _peer(args):
    """Host of a socket call's address; None for sockets that are not of the internet."""
    return args[1][0] if isinstance(args[1], tuple) else None


socket.getaddrinfo = _guard("getaddrinfo", socket.getaddrinfo, lambda args: args[0])
for _name in ("connect", "connect_ex"):
    setattr(socket.socket, _name, _guard(_name, getattr(socket.socket, _name), _peer))
