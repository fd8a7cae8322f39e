"""A server that accepts connections and never reads from them."""

import socket
import sys

listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
held = []
while True:
    held.append(listener.accept())
