"""A server that speaks first: a greeting, then, once the client has closed its half, what it was sent and how much."""

import socketserver
import sys


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            self.serve()
        except ConnectionError:
            pass  # Whoever only looks whether this listens.

    def serve(self):
        self.request.sendall(b"220 speak\r\n")
        received = b""
        while data := self.request.recv(65536):
            received += data
        self.request.sendall(b"%d bytes: " % len(received) + received)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
