"""A TCP relay to the port that is its argument. It prints its own port, and falls silent at the first line of its input.

Silent means that the kernel drops whatever arrives from the server, as a machine does that is gone: no data, no acknowledgement,
no reset. A socket filter does that without any privilege (Linux).
"""

import ctypes
import fcntl
import socket
import struct
import sys
import termios
import threading
import time

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)

servers = []


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass


def unacknowledged(server):
    return struct.unpack("i", fcntl.ioctl(server, termios.TIOCOUTQ, bytes(4)))[0]


def relay(listener, port):
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        servers.append(server)
        for ends in ((client, server), (server, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=relay, args=(listener, int(sys.argv[1])), daemon=True).start()
print(listener.getsockname()[1], flush=True)
sys.stdin.readline()
for server in servers:
    program = ctypes.create_string_buffer(DROP_ALL)
    while True:
        server.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
        # A client that was about to send something has done so by then.
        time.sleep(0.2)
        # What the server has not acknowledged would be sent again and again: a sign of life.
        if not unacknowledged(server):
            break
        server.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        while unacknowledged(server):
            time.sleep(0.001)
print("silent", flush=True)
threading.Event().wait()
