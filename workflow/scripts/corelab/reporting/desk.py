"""Serving the review desk on this machine alone, so that each decision is written at once.

Bound to the loopback address; the address holds a secret of this session, and requests for
another host or without the secret are refused, so that no other page in the browser and no other
person on the machine can decide anything.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from corelab.provenance.decisions import DecisionFault, append_decision, read_decisions
from corelab.reporting import quality_figures, viewer

LOOPBACK = "127.0.0.1"
#: Folders below the pages that are served.
FOLDERS = (viewer.FOLDER, quality_figures.FOLDER)
#: Fields that a decision from the page may have.
FIELDS = ("participant_id", "visit", "endpoint", "decision", "reason", "decided_by")
MAX_BODY_BYTES = 20_000
#: What the desk serves: pages, and the files of the viewer and the figures below them.
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".webp": "image/webp",
}


class Desk(ThreadingHTTPServer):
    """The server: pages of a report folder, and the table of decisions.

    Parameters
    ----------
    folder
        ``report/`` of the study.
    decisions
        ``qc_decisions.tsv``.
    port
        0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, folder: Path, decisions: Path, port: int = 0) -> None:
        self.folder = folder.resolve()
        self.decisions = decisions
        self.token = secrets.token_urlsafe(18)
        self.writing = Lock()
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def url(self) -> str:
        """Address of the desk."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/review.html"


class _Handler(BaseHTTPRequestHandler):
    server: Desk

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the table is the record."""

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, content: Any) -> None:
        self._answer(status, json.dumps(content).encode(), "application/json")

    def _name(self) -> str | None:
        """Path requested below the secret; None where the request may not ask."""
        host = self.headers.get("Host", "")
        if host not in {f"{name}:{self.server.server_port}" for name in (LOOPBACK, "localhost")}:
            return None
        origin = self.headers.get("Origin")
        if origin not in (None, f"http://{host}"):
            return None
        path = unquote(urlsplit(self.path).path)
        head, _, name = path.removeprefix("/").partition("/")
        return name if secrets.compare_digest(head.encode(), self.server.token.encode()) else None

    def do_GET(self) -> None:
        """A page, or the decisions so far."""
        name = self._name()
        if name is None:
            return self._json(403, {"error": "use the address that the review target printed"})
        if name == "decisions":
            return self._decided(lambda: None)
        file = (self.server.folder / name).resolve()
        places = {self.server.folder, *(self.server.folder / name for name in FOLDERS)}
        if file.parent not in places or file.suffix not in MEDIA or not file.is_file():
            return self._json(404, {"error": "no such page"})
        return self._answer(200, file.read_bytes(), MEDIA[file.suffix])

    def _decided(self, change: Callable[[], object]) -> None:
        try:
            with self.server.writing:
                change()
                found = [asdict(item) for item in read_decisions(self.server.decisions)]
        except (DecisionFault, TypeError) as fault:
            return self._json(400, {"error": str(fault)})
        return self._json(200, found)

    def do_POST(self) -> None:
        """Add a decision, or finish."""
        name = self._name()
        if name is None:
            return self._json(403, {"error": "use the address that the review target printed"})
        if name == "finish":
            self._json(200, {"finished": True})
            # shutdown() waits for the loop that this request is part of, so another thread asks.
            Thread(target=self.server.shutdown, daemon=True).start()
            return None
        length = int(self.headers.get("Content-Length") or 0)
        if name != "decisions" or not 0 < length <= MAX_BODY_BYTES:
            return self._json(404, {"error": "nothing is taken here"})
        try:
            given = json.loads(self.rfile.read(length))
            fields = {key: str(given[key]) for key in FIELDS if key in given}
        except (ValueError, TypeError):
            return self._json(400, {"error": "not a decision"})
        return self._decided(partial(append_decision, self.server.decisions, **fields))


def serve(folder: Path, decisions: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serve the desk until it is finished on the page or by Ctrl-C."""
    with Desk(folder, decisions, port) as desk:
        tell(f"Review desk: {desk.url}")
        tell(f"Decisions go to {decisions}; 'Finish' on the page, or Ctrl-C, ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            desk.serve_forever(poll_interval=0.2)
    number = len(read_decisions(decisions))
    tell(f"{number} decisions in {decisions}. Run the workflow again to apply them.")
