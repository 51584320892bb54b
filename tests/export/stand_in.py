"""A stand-in for the HTTP interface of the Hugging Face Hub, which records what is sent to it."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class StandIn:
    """A Hub with at most one repository.

    Args:
        is_public: whether the repository exists and all may see it.
        breaks_at: the connection ends without an answer where the path holds this; None never.
        refuses: whether it refuses every token.
    """

    is_public: bool = False
    breaks_at: str | None = None
    refuses: bool = False
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Hash -> content of what was uploaded as a large file."""
    commits: list[dict[str, bytes]] = field(default_factory=list)
    """The files of each commit."""

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any] | None:
        """Answer a request as the Hub does; None for a place that it does not have."""
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": f"{self.endpoint}/me/mine"}
        if "/preupload/" in path:
            names = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            return {"files": [{"path": n, "uploadMode": modes[n], "shouldIgnore": False} for n in names]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return {"objects": [{**one, "actions": self._upload(one["oid"])} for one in objects]}
        if path.startswith("/store/"):
            self.stored[path.removeprefix("/store/")] = body
            return {}
        if "/commit/" in path:
            self.commits.append(dict(self._files(body)))
            return {"commitUrl": f"{self.endpoint}/me/mine/commit/main", "commitOid": "a" * 40}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if (method, path) == ("GET", "/api/models/me/mine"):
            return {"id": "me/mine", "private": not self.is_public}
        return None

    def _upload(self, oid: str) -> dict[str, Any]:
        return {"upload": {"href": f"{self.endpoint}/store/{oid}"}}

    def _files(self, body: bytes) -> Iterator[tuple[str, bytes]]:
        for line in body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                yield value["path"], base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                content = self.stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                yield value["path"], content


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Run a stand-in on a free port."""
    hub = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.asked.append(path)
            if "/me/mine" in path and not path.startswith("/store"):
                hub.tokens.add(self.headers.get("Authorization"))
            if hub.breaks_at is not None and hub.breaks_at in path:
                self.close_connection = True
                return
            found = None if hub.refuses else hub.answer(self.command, path, body)
            content = json.dumps(found or {"error": "no"}).encode()
            self.send_response(403 if hub.refuses else 404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST  # noqa: N815  # the names are those of http.server

        def log_message(self, *args: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield hub
        server.shutdown()
