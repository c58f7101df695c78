"""A W&B service on loopback, as far as the real client needs one: runs are logged to it and read from it.

The protocol was taken from what wandb 0.31 sends and accepts. What is logged online lands in `runs` as the
service would keep it, so that a test can read it back through the client's public API.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

KEY = "k" * 40
ENTITY = "team"


class Stub:
    """What the service holds, and how it misbehaves."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        """(entity, project) -> W&B id -> run, with the service's own names for its parts."""
        self.status = 200
        """What every request is answered with; 500 for a service that is down."""
        self.silent = threading.Event()
        """Set: requests are taken and never answered."""
        self.held_back = ""
        """A GraphQL operation that is never answered."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Every GraphQL operation and its variables."""
        self.address = ""

    def add(self, project: str, name: str, history: list[dict[str, Any]], **parts: Any) -> None:
        """A finished run; `config` and `summaryMetrics` as plain values."""
        config = {key: {"value": value} for key, value in parts.pop("config", {}).items()}
        rows = [{"_step": step, **row} for step, row in enumerate(history)]
        run = _run(name) | {"state": "finished", "history": rows} | parts
        run |= {"config": json.dumps(config), "summaryMetrics": json.dumps(parts.get("summaryMetrics", {}))}
        self.runs.setdefault((ENTITY, project), {})[name] = run

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """`data` of a GraphQL answer."""
        self.asked.append((operation, variables))
        return getattr(self, f"_{operation}", lambda _: {})(variables)  # type: ignore[no-any-return]

    # --- logging in

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "1", "entity": ENTITY, "username": "u", "flags": "{}", "teams": {"edges": []}}}

    def _GetDefaultEntity(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "1", "entity": ENTITY}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        entity, project = given["entity"] or ENTITY, given["project"]
        run = self.runs.setdefault((entity, project), {}).setdefault(given["name"], _run(given["name"]))
        theirs = {"groupName": "group", "displayName": "displayName", "jobType": "jobType", "tags": "tags"}
        run |= {ours: given[name] for name, ours in theirs.items() if given.get(name)}
        run |= {"config": given["config"]} if given.get("config") else {}
        bucket = {k: run[k] for k in ("id", "name", "displayName", "description", "config", "sweepName")}
        bucket |= {"historyLineCount": len(run["history"])}
        bucket["project"] = {"id": "1", "name": project, "entity": {"id": "1", "name": entity}}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def stream(self, path: str, body: dict[str, Any]) -> None:
        """A part of a run's history and summary, as it is logged."""
        _, _, entity, project, name, _ = path.split("/")
        run = self.runs[entity, project][name]
        for file, part in (body.get("files") or {}).items():
            for line in part["content"]:
                if file == "wandb-history.jsonl":
                    run["history"].append(json.loads(line))
                elif file == "wandb-summary.json":
                    run["summaryMetrics"] = line
        if body.get("complete"):
            run["state"] = "failed" if body.get("exitcode") else "finished"

    # --- reading

    def _Runs(self, given: dict[str, Any]) -> dict[str, Any]:
        runs = self.runs.get((given["entity"], given["project"]))
        if runs is None:
            return {"project": None}
        first, after = given.get("perPage") or 50, int(given.get("cursor") or 0)
        wanted = json.loads(given.get("filters") or "{}")
        found = [r for r in runs.values() if all(r.get(k) == v for k, v in wanted.items())]
        edges = [
            {"node": _shown(run) | {"projectId": "1"}, "cursor": str(i)}
            for i, run in enumerate(found[after : after + first], after + 1)
        ]
        more = {"endCursor": str(after + len(edges)), "hasNextPage": after + first < len(found)}
        return {
            "project": {
                "internalId": "1",
                "runCount": len(found),
                "readOnly": False,
                "runs": {"edges": edges, "pageInfo": more},
            }
        }

    def _Run(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["entity"], given["project"]][given["name"]]
        return {"project": {"internalId": "1", "run": _shown(run)}}

    def _RunHistoryKeys(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["entity"], given["project"]][given["name"]]
        return {"project": {"run": {"historyKeys": _shown(run)["historyKeys"]}}}

    def _RunParquetHistory(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["entity"], given["project"]][given["runName"]]
        exported = run.get("exported", 0)
        urls = [f"{self.address}/parquet/{given['entity']}/{given['project']}/{run['name']}"] if exported else []
        live = [{key: row.get(key) for key in given["liveKeys"]} for row in run["history"][exported:]]
        return {"project": {"run": {"parquetHistory": {"parquetUrls": urls, "liveData": live}}}}

    def parquet(self, path: str) -> bytes:
        """The exported part of a run's history."""
        _, _, entity, project, name = path.split("/")
        run = self.runs[entity, project][name]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(run["history"][: run["exported"]]), sink)
        return sink.getvalue()

    def _HistoryPage(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["entity"], given["project"]][given["run"]]
        low, high = given["minStep"], given["maxStep"]
        shown = run["history"][: len(run["history"]) - run.get("kept_back", 0)]
        rows = [json.dumps(r) for r in shown if low <= r["_step"] < high]
        return {"project": {"run": {"history": rows}}}


def _run(name: str) -> dict[str, Any]:
    return {
        "id": f"id-{name}",
        "name": name,
        "displayName": name,
        "description": "",
        "notes": "",
        "sweepName": None,
        "state": "running",
        "group": "",
        "jobType": "",
        "tags": [],
        "commit": "",
        "readOnly": False,
        "createdAt": "2025-01-01T00:00:00Z",
        "heartbeatAt": "2025-01-01T00:00:00Z",
        "systemMetrics": "{}",
        "user": {"name": "u", "username": "u"},
        "config": "{}",
        "summaryMetrics": "{}",
        "history": [],
    }


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    history = run["history"]
    keys = {"lastStep": history[-1]["_step"] if history else -1, "sets": [], "keys": {}}
    own = ("history", "exported", "kept_back")
    return {k: v for k, v in run.items() if k not in own} | {"historyLineCount": len(history), "historyKeys": keys}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def _take(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, answer: Any) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(self.stub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # whoever asked has given up
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._take()
        self._send(self.stub.parquet(self.path) if self.path.startswith("/parquet/") else {})

    do_PUT = do_GET

    def do_POST(self) -> None:
        body = self._take()
        held_back = self.stub.held_back.encode()
        while (self.stub.silent.is_set() or (held_back and held_back in body)) and not _CLOSING.wait(0.05):
            pass
        if self.path == "/graphql" and self.stub.status == 200:
            request = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            self._send({"data": self.stub.answer(found[1] if found else "", request.get("variables") or {})})
            return
        if self.path.endswith("/file_stream"):
            self.stub.stream(self.path, json.loads(body))
        self._send({})

    def log_message(self, *_: object) -> None:
        pass


_CLOSING = threading.Event()


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A stub that wandb talks to, with a key that it takes."""
    stub = Stub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    stub.address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", stub.address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    _CLOSING.clear()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        _CLOSING.set()
        server.shutdown()
        server.server_close()
