"""Format `hf`: a folder that plain transformers loads, and what else reads its layout.

The registered files are copied byte for byte. New are the chat template, where others need a
beginning (`template`), and the generation config, which names every token at which Lathe's answers
end.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from flows.export.source import Source
from flows.export.template import Adapted
from stages.common.core import checkpoints, models
from stages.common.release import artifacts
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log

TEMPLATE, TOKENIZER, GENERATION = "chat_template.jinja", "tokenizer_config.json", "generation_config.json"
MARKS = True
"""Transformers reads a template's marks of what the assistant says."""


def write(source: Source, template: Adapted, folder: Path) -> str | None:
    """Write the version into `folder`, going on with what a call before has copied whole; return
    the name of the one file to load, None: the folder is.
    """
    hashes: dict[str, str] = json.loads((source.folder / checkpoints.MANIFEST).read_text(encoding="utf-8"))
    hashes.pop(checkpoints.PLACE, None)
    for number, (name, sha256) in enumerate(sorted(hashes.items()), start=1):
        if name != artifacts.LINEAGE:
            copy(source.folder / name, folder / name, sha256)
            log.info("%s of %s: %s", number, len(hashes), name)
    write_template(template, folder)
    write_generation_config(source, folder)
    return None


def copy(file: Path, to: Path, sha256: str) -> None:
    """Copy a file unless it is there whole. Raises DataError where the copy is not what was
    registered.
    """
    if to.is_file() and models.file_sha256(to) == sha256:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)
    if models.file_sha256(to) != sha256:
        raise DataError("the copy has other bytes than the registered file", where=to, remedy="check the disk")


def write_template(template: Adapted, folder: Path) -> None:
    """Write the template as a file of its own, and take an older place for it away."""
    (folder / TEMPLATE).write_text(template.text, encoding="utf-8")
    config = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    if config.pop("chat_template", None) is not None:
        (folder / TOKENIZER).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_generation_config(source: Source, folder: Path) -> None:
    """Write a generation config whose answers end where Lathe's do; the rest stays as it was."""
    given: dict[str, Any] = {}
    if (folder / GENERATION).is_file():
        given = json.loads((folder / GENERATION).read_text(encoding="utf-8"))
    ends = source.stops()
    given["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    given["pad_token_id"] = source.tokenizer.pad_token_id
    if source.tokenizer.bos_token_id is not None:
        given["bos_token_id"] = source.tokenizer.bos_token_id
    (folder / GENERATION).write_text(json.dumps(given, indent=2, sort_keys=True) + "\n", encoding="utf-8")
