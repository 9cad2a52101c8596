"""A server as people write it, on the socket that it inherits. Nothing in it knows who started it."""
import http.server
import os
import signal
import socket
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        if self.path == "/slow":
            print("a slow request begins", flush=True)
            time.sleep(2)
        body = f"{os.environ['WORKER_ID']} {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    # What is in flight is finished before the end.
    daemon_threads = False


listener = socket.socket(fileno=3)
# Others accept from it, too, and may be quicker.
listener.setblocking(False)
server = Server(listener.getsockname(), Handler, bind_and_activate=False)
server.socket.close()
server.socket = listener


def end(*_):
    print(f"python {os.getpid()} is told to end", flush=True)
    if not os.environ.get("DEAF"):
        threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, end)
print(f"python {os.getpid()} listens", flush=True)
server.serve_forever(poll_interval=0.05)
server.server_close()
