"""https ADDRESS PORT CERTIFICATE KEY: answers 200 where the client asks for the server name lb.test and 404 elsewhere, over
TLS. http ADDRESS PORT: answers 200 to everything. udp ADDRESS PORT: answers `ping` with `pong`, and nothing else."""

import http.server
import socket
import socketserver
import ssl
import sys

NAME = "lb.test"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers["Host"] == NAME and self.connection.asked_for == NAME and self.path == "/up"
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Welcome(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # without asking a name server, who is far away, for the host's name


class NamedSocket(ssl.SSLSocket):
    asked_for = None


def note_name(connection, name, _context):
    connection.asked_for = name


def https(address, port, certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sslsocket_class = NamedSocket
    context.sni_callback = note_name
    server = Server((address, port), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def udp(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind((address, port))
        while True:
            question, client = listening.recvfrom(2048)
            if question == b"ping":
                listening.sendto(b"pong", client)


if __name__ == "__main__":
    what, where, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "https":
        https(where, number, *sys.argv[4:6])
    elif what == "http":
        Server((where, number), Welcome).serve_forever()
    else:
        udp(where, number)
