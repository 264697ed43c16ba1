"""The weights of a run that is read-only can be exported."""

from __future__ import annotations

from pathlib import Path

from agentft.export.merging import copy_model
from agentft.files import DIGESTS


def test_a_copy_of_read_only_weights_can_be_changed(tmp_path: Path) -> None:
    source = tmp_path / "adapter"
    (source / "more").mkdir(parents=True)
    for name in ("adapter_config.json", "more/weights", DIGESTS):
        (source / name).write_text(name)
        (source / name).chmod(0o444)
    for folder in (source / "more", source):
        folder.chmod(0o555)
    try:
        copy_model(source, tmp_path / "copy")
    finally:
        for folder in (source, source / "more"):
            folder.chmod(0o755)
    found = {path.relative_to(tmp_path / "copy").as_posix(): path for path in (tmp_path / "copy").rglob("*")}
    assert found.keys() == {"adapter_config.json", "more", "more/weights"}
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "copy", *found.values()))
    assert found["more/weights"].read_text() == "more/weights"
