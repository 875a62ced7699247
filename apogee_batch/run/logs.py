"""Logs of a run: one JSON object a line, under the run's folder."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOGGER = "apogee_batch"
LOG_FILE = "driver.jsonl"


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object: time (UTC), level, where, message, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class LogFile(logging.FileHandler):
    """A log on which nothing depends: where the disk is full, it has gaps."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  its name in logging
        """Do not print: whatever else is written to that disk tells what is wrong with it."""

    def close(self) -> None:
        """Close the file, whether or not its last lines could be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_to_folder(folder: Path) -> Iterator[logging.Logger]:
    """Write what the package logs, and an error that ends the block, to `folder`/driver.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = LogFile(folder / LOG_FILE, encoding="utf-8", errors="backslashreplace")  # names may be no text
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(LOGGER)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        logger.info("begin")
        yield logger
        logger.info("end")
    except BaseException as error:
        logger.exception("stopped: %s", str(error) or type(error).__name__)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()
