"""Parsing speed in rows per second of CPU time on one core, and its memory; run by `make bench`.

MS-Agent rows: about 900 characters of system text, one call, one result, one answer. In `same` all rows share the
system text, in `different` each has its own (nothing can be cached), `file` reads them from a JSONL file, and `hostile`
is text of broken markers.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from agentft.calls.msagent_grammar import CALL_END, CALL_START, RESULT_END, RESULT_START, parse_parts
from agentft.records import parse_row
from agentft.rows.ledger import Ledger
from agentft.rows.reading import read_conversations
from agentft.types import Json

ROWS = 20_000
FILE_ROWS = 100_000


def make_row(number: int, system: int) -> dict[str, Json]:
    """One row; `system` is the number of its system text."""
    parameters = [
        {"name": "city", "description": f"The city to look up, for example city {system}", "required": "True"},
        {"name": "days", "description": "How many days ahead, from 1 to 7", "required": "False", "type": "integer"},
    ]
    tools = [
        {
            "name": f"{name}_{system}",
            "description": f"{name} of a city, at the hour of asking",
            "url": "http://weather.test",
            "paths": [{"name": f"{name}_{system}", "model_id": f"/{name}", "method": "post", "parameters": parameters}],
        }
        for name in ("current_weather", "air_quality")
    ]
    blocks = "\n\n".join(f"{index}. {json.dumps(tool)}" for index, tool in enumerate(tools, 1))
    call = {"api_name": "current_weather", "url": "http://weather.test/current_weather", "parameters": {"city": "Rome"}}
    answer = (
        f"Let me look.\n<|startofthink|> ```JSON\n{json.dumps(call)}\n``` <|endofthink|>\n\n"
        '<|startofexec|> ```JSON\n{"temperature": 21.5, "unit": "celsius"}\n``` <|endofexec|>\nIt is 21.5 degrees.'
    )
    turns: list[Json] = [
        {"from": "system", "value": f"You are a helpful assistant. Use a tool where one helps.\n\n{blocks}"},
        {"from": "user", "value": f"What is the weather in Rome, question {number}?"},
        {"from": "assistant", "value": answer},
    ]
    return {"id": f"row-{number}", "conversations": turns}


def measure(name: str, lines: list[str]) -> None:
    """Print the rows/s of reading and parsing `lines`."""
    start = time.process_time()
    for line in lines:
        parse_row(json.loads(line), "row")
    sys.stdout.write(f"{name:>10}: {len(lines) / (time.process_time() - start):>8,.0f} rows/s\n")


def measure_file() -> None:
    """Print the rows/s and the memory over `FILE_ROWS` rows of a file, each with its own system text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for number in range(FILE_ROWS):
                stream.write(json.dumps(make_row(number, number)) + "\n")
        start, marks = time.process_time(), []
        for number, _ in enumerate(read_conversations(path, Ledger()), 1):
            if number % (FILE_ROWS // 10) == 0:
                marks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        sys.stdout.write(
            f"{'file':>10}: {FILE_ROWS / (time.process_time() - start):>8,.0f} rows/s, peak MiB by tenth: {marks}\n"
        )


def measure_hostile() -> None:
    """Print how much longer parsing takes for eight times as many broken markers: 8 is linear."""
    for unit in (
        CALL_START,
        RESULT_START,
        CALL_START + '{"',
        f"{CALL_START}{{'a{CALL_END}",
        f'{RESULT_START}{{"x{RESULT_END}',
    ):
        seconds = []
        for count in (4_000, 32_000):
            start = time.process_time()
            parse_parts(unit * count)
            seconds.append(time.process_time() - start)
        sys.stdout.write(
            f"{'hostile':>10}: {unit!r} takes {seconds[1] / seconds[0]:.1f} times as long for 8 times the text\n"
        )


def main() -> int:
    """Run all measurements."""
    same = [json.dumps(make_row(number, 0)) for number in range(ROWS)]
    different = [json.dumps(make_row(number, number)) for number in range(ROWS)]
    system = len(json.loads(different[0])["conversations"][0]["value"])
    sys.stdout.write(f"{ROWS:,} rows, {system} characters of system text, {len(different[0])} characters per row\n")
    for _ in range(3):
        measure("same", same)
        measure("different", different)
    measure_file()
    measure_hostile()
    return 0


if __name__ == "__main__":
    sys.exit(main())
