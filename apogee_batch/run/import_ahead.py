"""Import what will be needed while there is nothing else to do."""

from contextlib import suppress
from importlib import import_module
from threading import Thread

THREAD_NAME = "import-ahead"


def import_ahead(*modules: str) -> Thread:
    """Import modules in a thread; an import statement for one of them waits for it.

    What goes wrong is told where the module is needed. A process that ends does not wait for the thread.

    Parameters
    ----------
    *modules : str
        Their names, in order.
    """
    thread = Thread(target=_import_all, args=(modules,), name=THREAD_NAME, daemon=True)
    thread.start()
    return thread


def _import_all(modules: tuple[str, ...]) -> None:
    for name in modules:
        with suppress(Exception):
            import_module(name)
