"""A process that runs the Python and SQL blocks of one page; requests and answers are lines of JSON."""

import json
import os
import sys
import traceback
from typing import Any


def run_sql(text: str, state: dict[str, Any]) -> None:
    """Run statements by one connection that lasts as long as the page."""
    import duckdb

    if "connection" not in state:
        state["connection"] = duckdb.connect()
    for statement in state["connection"].extract_statements(text):
        state["connection"].execute(statement).fetchall()


def serve() -> None:
    """Run each block that is asked for; say how it ended."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what blocks print is no answer
    names: dict[str, Any] = {"__name__": "__main__"}
    state: dict[str, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        problem = None
        try:
            if asked["language"] == "sql":
                run_sql(asked["text"], state)
            else:
                padded = "\n" * asked["line"] + asked["text"]  # so that tracebacks name lines of the page
                exec(compile(padded, asked["page"], "exec"), names)
        except BaseException:  # noqa: BLE001 (sys.exit in a block is told, too)
            problem = traceback.format_exc()
        sys.stdout.flush()
        answers.write(json.dumps({"problem": problem}) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
