"""Serves one Python function over HTTP.

The handler (FUNCTION_HANDLER, "file.function") is called with the JSON body of each request, and what it returns is
the answer, as JSON. A call without a body gets {}. An exception is answered with 500; its traceback goes to the log and
nowhere else, behind the id of the request. At most FUNCTION_CONCURRENCY calls run at once, each in a thread; more wait for
their turn.

A handler that must be given two arguments is given the call's Context as the second.

What a handler yields (it is a generator, or returns one, or any other iterator) goes out at once, piece by piece, each str
or bytes: the answer is what they are together. An exception before the first piece is answered as ever; one in the middle
breaks the answer off, so that nobody takes it for whole.

A call that takes longer than FUNCTION_TIMEOUT seconds has lost its caller. A thread cannot be ended, so the process ends
instead: it takes no more calls, lets the others end, and is started again. Where the call does not let any other thread
run (one long step of C code), a watchdog that needs none ends the process a little later.

Code that cannot be loaded ends the process with status 65 and the traceback on standard error.
"""

import faulthandler
import importlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback

LARGEST_HEAD = 64 * 1024
# Between two looks at how long calls take, and how much later than those the watchdog bites.
LOOK, MERCY = 0.25, 5


def load(handler):
    """The function a handler names."""
    sys.path.insert(0, os.getcwd())
    module, _, name = handler.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
        if not callable(function):
            raise TypeError(f"{handler} is no function")
        return function
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(65)


class Context:
    """What is known of a call beside its body."""

    def __init__(self, method, path, headers, deadline):
        self.method = method
        # Below the function's own address, with the query.
        self.path = path
        # By names in lower case.
        self.headers = headers
        # One call has one; callers and this log speak of it by that. "-" where whoever called gave none.
        self.request_id = headers.get("x-request-id", "")
        if not re.fullmatch(r"[!-~]{1,128}", self.request_id):
            self.request_id = "-"
        # Calls that mean the same thing have the same, attempts of one call among them. None where there is none.
        self.idempotency_key = headers.get("idempotency-key")
        # When nobody waits any more, in seconds since 1970. None where there is no such time.
        self.deadline = deadline


def wants_context(function):
    """True where a function must be given two arguments."""
    # Not by way of `inspect`, which takes longer to load than all else here.
    code = getattr(function, "__code__", None)
    # A decorator that takes any arguments (0x04: it has *args) passes on what it is given.
    while code is not None and code.co_flags & 0x04 and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
        code = getattr(function, "__code__", None)
    if code is None:
        return False
    own = 1 if hasattr(function, "__self__") else 0
    return code.co_argcount - own - len(function.__defaults__ or ()) == 2


def parse(body):
    """What a body says, {} where there is none. ValueError, for the caller, where it cannot be read."""
    try:
        return json.loads(body, parse_constant=no_number) if body.strip() else {}
    except RecursionError:
        raise ValueError("the body is JSON that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the body is no JSON: {error}") from None


def no_number(word):
    raise ValueError(f"{word} is no number")


class Closed(Exception):
    """The other side has gone, or makes no sense, or an answer that has begun will not be whole."""


class Connection:
    """One connection: reads requests, writes answers."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Closed()
        self.buffer += data

    def line(self):
        while b"\n" not in self.buffer:
            if len(self.buffer) > LARGEST_HEAD:
                raise Closed()
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def request(self):
        """Method, path, headers and body of the next request."""
        method, path, _ = (self.line().decode("latin-1").split(" ", 2) + ["", ""])[:3]
        headers = {}
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.line().split(b";")[0], 16):
                parts.append(self.exactly(size))
                self.line()
            while self.line():
                pass
            return method, path, headers, b"".join(parts)
        return method, path, headers, self.exactly(int(headers.get("content-length") or 0))

    def answer(self, status, kind, body, close, head_only):
        reasons = {200: "OK", 400: "Bad Request", 500: "Internal Server Error"}
        head = f"HTTP/1.1 {status} {reasons.get(status, 'Status')}\r\ncontent-type: {kind}\r\n"
        head += f"content-length: {len(body)}\r\n" + ("connection: close\r\n" if close else "") + "\r\n"
        self.sock.sendall(head.encode("latin-1") + (b"" if head_only else body))


class Pieces:
    """An answer that goes out in pieces, as they come."""

    def __init__(self, sock, head_only, close):
        self.sock = sock
        self.head_only = head_only
        # Asked as the answer begins: whether it is the connection's last.
        self.close = close
        self.began = False
        self.closes = False

    def head(self):
        self.began, self.closes = True, self.close()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
        return head + (b"connection: close\r\n" if self.closes else b"") + b"\r\n"

    def send(self, data, patience):
        """Sends a piece to who must have taken it within so many seconds; None for any time."""
        # An empty one would say that this was all.
        if not data or self.head_only:
            return
        head = b"" if self.began else self.head()
        self.out(head + b"%x\r\n%b\r\n" % (len(data), data), patience)

    def end(self, patience):
        head = b"" if self.began else self.head()
        self.out(head + (b"" if self.head_only else b"0\r\n\r\n"), patience)

    def out(self, data, patience):
        try:
            self.sock.settimeout(patience)
            self.sock.sendall(data)
            self.sock.settimeout(None)
        except OSError:
            raise Closed() from None


def piece(yielded):
    """The bytes of what a handler yielded."""
    if isinstance(yielded, str):
        return yielded.encode()
    if isinstance(yielded, (bytes, bytearray, memoryview)):
        return bytes(yielded)
    raise TypeError(f"a handler yields str or bytes, not {type(yielded).__name__}")


class Server:
    def __init__(self, function, port, concurrency):
        self.function = function
        self.wants_context = wants_context(function)
        self.turns = threading.Semaphore(concurrency) if concurrency > 0 else None
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.idle = set()
        self.busy = 0
        self.status = 0
        # When each call that runs must have ended.
        self.due = {}
        self.called = threading.Event()
        self.arming = threading.Lock()
        self.timeout = float(os.environ.get("FUNCTION_TIMEOUT", "0"))
        self.sock = socket.create_server(("", port), backlog=1024)

    def call(self, method, path, headers, body, pieces):
        """Makes a call: status and text of the answer, or None where it went out in pieces."""
        context = Context(method, path, headers, time.time() + self.timeout if self.timeout > 0 else None)
        try:
            params = parse(body)
        except ValueError as error:
            return 400, json.dumps({"error": str(error)})
        try:
            if self.turns is None:
                return self.run_one(params, context, pieces)
            with self.turns:
                return self.run_one(params, context, pieces)
        except Closed:
            raise
        except BaseException as error:
            # In one piece, lest lines of others stand within.
            sys.stderr.write(f"request {context.request_id} failed\n{traceback.format_exc()}")
            sys.stderr.flush()
            if pieces.began:
                raise Closed() from None
            return 500, json.dumps({"error": f"the function failed: {type(error).__name__}"})

    def run_one(self, params, context, pieces):
        me = threading.get_ident()
        due = time.monotonic() + self.timeout if self.timeout > 0 else None
        self.count(me, due)
        try:
            given = (params, context) if self.wants_context else (params,)
            result = self.function(*given)
            if hasattr(result, "__next__"):
                return self.send_all(result, pieces, me, due)
            # What is no number has no place in JSON.
            return 200, json.dumps(result, allow_nan=False)
        finally:
            self.due.pop(me, None)

    def count(self, me, due):
        """From now on a call runs that must have ended then, if there is such a time."""
        if due is None:
            return
        with self.arming:
            self.due[me] = due
            # Before the call: a call that lets no other thread run would not let the one that watches, either.
            if not self.called.is_set():
                self.arm()
                self.called.set()

    def send_all(self, yielded, pieces, me, due):
        """Sends what an iterator yields, as it does."""
        try:
            for one in yielded:
                data, left = piece(one), self.left(due)
                # A caller that takes nothing must not end the instance: its time is that of the socket.
                self.due.pop(me, None)
                pieces.send(data, left)
                self.count(me, due)
            left = self.left(due)
            self.due.pop(me, None)
            pieces.end(left)
        finally:
            if hasattr(yielded, "close"):
                yielded.close()

    def left(self, due):
        """Seconds that a call has left."""
        if due is None:
            return None
        left = due - time.monotonic()
        if left <= 0:
            raise TimeoutError("the call takes longer than it may")
        return left

    def overdue(self):
        now = time.monotonic()
        return sum(1 for due in list(self.due.values()) if due < now)

    def arm(self):
        faulthandler.dump_traceback_later(self.timeout + MERCY, exit=True)

    def watch(self):
        while not self.overdue():
            with self.arming:
                if self.due:
                    self.arm()
                else:
                    # Nothing to watch, and nothing that wakes: an idle process takes no time, and may be paused.
                    faulthandler.cancel_dump_traceback_later()
                    self.called.clear()
            self.called.wait()
            time.sleep(LOOK)
        faulthandler.cancel_dump_traceback_later()
        print("a call takes longer than it may: this instance ends and is started again", file=sys.stderr, flush=True)
        self.status = 70
        self.sock.close()
        self.end()

    def serve(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock)
        try:
            while True:
                with self.lock:
                    if self.ending.is_set() and not connection.buffer:
                        return
                    self.idle.add(sock)
                method, path, headers, body = self.next(connection, sock)
                asks_to_close = headers.get("connection", "").lower() == "close"
                pieces = Pieces(sock, method == "HEAD", lambda: asks_to_close or self.ending.is_set())
                try:
                    whole = self.call(method, path, headers, body, pieces)
                    close = pieces.closes
                    if whole is not None:
                        status, text = whole
                        close = pieces.close()
                        connection.answer(status, "application/json", text.encode(), close, method == "HEAD")
                finally:
                    with self.lock:
                        self.busy -= 1
                if close:
                    return
        except (Closed, OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.idle.discard(sock)
            sock.close()

    def next(self, connection, sock):
        request_began = connection.buffer
        if not request_began:
            connection.more()
        with self.lock:
            self.idle.discard(sock)
            self.busy += 1
        try:
            return connection.request()
        except BaseException:
            with self.lock:
                self.busy -= 1
            raise

    def end(self, *_):
        """Nothing new; what runs may end; connections that wait are closed."""
        self.ending.set()
        threading.Thread(target=self.drain).start()

    def drain(self):
        with self.lock:
            for sock in list(self.idle):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        while True:
            with self.lock:
                if self.busy <= self.overdue():
                    break
            time.sleep(0.01)
        os._exit(self.status)

    def run(self):
        signal.signal(signal.SIGTERM, self.end)
        signal.signal(signal.SIGINT, self.end)
        if self.timeout > 0:
            threading.Thread(target=self.watch, daemon=True).start()
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                # Closed: what runs may end.
                threading.Event().wait()
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()


def main():
    function = load(os.environ.get("FUNCTION_HANDLER", "main.main"))
    concurrency = int(os.environ.get("FUNCTION_CONCURRENCY", "0"))
    Server(function, int(os.environ.get("PORT", "8080")), concurrency).run()


if __name__ == "__main__":
    main()
