"""An MCP server on stdin and stdout that lists the tools of a JSON file, given as its last argument.

Calls are appended to a file beside it, `calls.jsonl`; a call with `fail` is an error, one with `die` ends the server,
and one with `content` gets that. A file with `nextCursor` is the answer as it is.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

TOOLS = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
KEY = {"name": "key", "description": f"Key: {os.environ.get('MY_API_KEY')}", "inputSchema": {"type": "object"}}

for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = {"tools": [*TOOLS, KEY] if isinstance(TOOLS, list) else TOOLS}
        result = TOOLS if "nextCursor" in TOOLS else result
        if message["method"] == "tools/call":
            called = message["params"]
            with Path(sys.argv[-1]).with_name("calls.jsonl").open("a", encoding="utf-8") as calls:
                calls.write(json.dumps([called["name"], called["arguments"]]) + "\n")
            if "die" in called["arguments"]:
                sys.exit()
            text = KEY["description"] if called["name"] == "key" else f"done: {called['name']}"
            content = called["arguments"].get("content", [{"type": "text", "text": text}])
            result = {"content": content, "isError": "fail" in called["arguments"]}
            result |= called["arguments"].get("more", {})
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            result = {
                "protocolVersion": version,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "x", "version": "1"},
            }
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
        sys.stdout.flush()
