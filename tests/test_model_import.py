"""An import writes a new folder, or finds its own model there; it never replaces another one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from apogee_batch.errors import UsageError
from apogee_batch.network.checkpoint import HEADER_FILE, MODEL_FILE, load_checkpoint, save_checkpoint
from apogee_batch.network.model import SpectrumNet
from apogee_batch.network.official import import_official
from apogee_batch.network.scaling import InputTransform


def state_dict(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    path = folder / f"weights-{seed}.pt"
    torch.save(SpectrumNet().state_dict(), path)
    return path


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_import_can_be_repeated_and_completed(tmp_path: Path) -> None:
    file, out = state_dict(tmp_path, 1), tmp_path / "model"
    first = import_official(file, out)
    (out / f".{MODEL_FILE}.0f.partial").write_bytes(b"left by a kill")
    before = bytes_in(out)
    assert import_official(file, out).sha256 == first.sha256
    assert bytes_in(out) == before
    (out / HEADER_FILE).unlink()  # killed between the two files
    assert import_official(file, out).sha256 == first.sha256


def test_an_import_replaces_nothing_else(tmp_path: Path) -> None:
    file, out = state_dict(tmp_path, 1), tmp_path / "model"
    import_official(file, out)
    refusal = r"model: holds something other than this import; name a new folder with --out"

    def refuses(other: Path = file) -> None:
        before = bytes_in(out)
        with pytest.raises(UsageError, match=refusal):
            import_official(other, out)
        assert bytes_in(out) == before

    refuses(state_dict(tmp_path, 2))
    model = load_checkpoint(out)
    changes: list[dict[str, Any]] = [{"origin": "trained"}, {"transform": InputTransform("contrast")}]
    for change in changes:
        save_checkpoint(out, model.model.state_dict(), replace(model.header, **change))
        refuses()
    (out / HEADER_FILE).write_text("{}")  # of another program, or damaged
    refuses()
    save_checkpoint(out, model.model.state_dict(), model.header)
    (out / "plan.json").write_text("{}")
    refuses()
    with pytest.raises(UsageError, match="holds something other"):
        import_official(file, file)
