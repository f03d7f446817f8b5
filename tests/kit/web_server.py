"""Small web servers for tests, with answers from a method."""

import http.server
import threading
from contextlib import contextmanager


@contextmanager
def serving(handler):
    """Run a web server in threads of this process. Yields its URL."""
    server = _QuietServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the result of a method `look`: a status, a body and perhaps headers."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        status, body, *headers = self.look(self.path)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET


class _QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Print nothing: some handlers abort on purpose."""
