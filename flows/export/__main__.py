"""Export a version of the registry as a folder that other programs load: checked, and whole or not
there.

Formats: hf (safetensors, for transformers, vLLM and others), gguf (llama.cpp). The template is
compared with Lathe's own encoding token by token, and questions of the test are asked again of the
export by transformers alone; see docs/export.md. Command: lathe export 3 --format hf
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.export import bom, card, conversations, gguf_file, hf, plain, questions, signing, template
from flows.export import source as sources
from flows.export.plain import Found
from flows.export.questions import Asks
from flows.export.source import Source
from flows.export.template import Adapted
from stages.common.core import params
from stages.common.core.records import Record
from stages.common.runtime import disk_space, logs, process, whole_files
from stages.common.runtime.errors import DataError, ParamsError, StageError
from stages.common.runtime.logs import log

FORMATS = {"hf": hf, "gguf": gguf_file}
AWQ = """AutoAWQ, which made such files, is maintained no longer, and transformers reads them only through \
gptqmodel's kernels, so no check would hold for them"""
FACTS = "export.json"

Number = Annotated[str, typer.Argument(help="number of the version")]
Format = Annotated[str, typer.Option("--format", help="hf or gguf")]
Asked = Annotated[int, typer.Option(min=0, help="questions of the test that are asked again")]
Out = Annotated[Path, typer.Option(help="folder in which the export is made")]
Force = Annotated[bool, typer.Option("--force", help="instead of an export that is there")]
Key = Annotated[
    Path | None, typer.Option(envvar=signing.KEY, help="private key (EC, PEM) to sign with; it is read, never kept")
]
Test = Annotated[Path, typer.Option(help="validated questions")]
Talks = Annotated[Path, typer.Option(help="validated conversations that are compared")]


def main(
    version: Number,
    form: Format = "hf",
    ask: Asked = 50,
    out: Out = Path("exports"),
    force: Force = False,
    key: Key = None,
    test: Test = Path("data/validated/questions"),
    talks: Talks = Path("data/validated/conversations/validation"),
) -> None:
    """Export a version, and say what was checked."""
    known(form)
    signing.check(key)
    source = sources.read(version)
    place = out / f"{source.title}-{form}"
    if place.exists() and not force:
        raise DataError("there is an export already", where=place, remedy="remove it, or give --force")
    if form == "gguf":
        gguf_file.check(source)
    asked = sources.questions(source, test, ask)
    partial = place.with_name(f".{place.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        disk_space.check(out, disk_space.size(source.folder) - disk_space.size(partial))
        facts = made(source, form, partial, conversations.chosen(talks), asked, plain.apart)
        finish(source, partial, facts, key)
    except StageError:
        whole_files.remove(partial)
        raise
    whole_files.put(partial, place)
    signed = f"signed ({signing.SIGNATURE})" if key else f"not signed ({signing.SUMS} alone)"
    logs.report(
        f"{place}: {facts['template']['rows']} renderings equal, {questions.told(facts['questions'])}, {signed}"
    )


def known(form: str) -> None:
    """Raise ParamsError for a format that is not made."""
    if form == "awq":
        remedy = "export hf and quantise it on a GPU with llm-compressor's AWQModifier, or serve hf with vLLM"
        raise ParamsError(f"--format awq is not made here: {AWQ}", remedy=remedy)
    if form not in FORMATS:
        near = params.suggestion(form, list(FORMATS))
        raise ParamsError(f"--format is {form!r}, none of {', '.join(FORMATS)}{near}")


def made(
    source: Source, form: str, folder: Path, talks: list[Record], asked: list[Record], asks: Asks
) -> dict[str, Any]:
    """Write the export into `folder` and check it; return what was found. Raises DataError for a
    difference that the format does not explain.
    """
    rows = conversations.prompts_and_wholes(talks)
    ours = template.expected(source.tokenizer, rows)
    adapted = template.adapted(source.tokenizer, rows, ours, FORMATS[form].MARKS)
    file = FORMATS[form].write(source, adapted, folder)
    log.info("loading it with transformers alone, %s questions to ask", len(asked))
    job = source.job(folder, file) | {"questions": questions.jobs(source, asked), "weights": file is not None}
    job["conversations"] = [conversations.plain(row, way) for way in adapted.forms for row in rows]
    try:
        found = asks(job)
    except RuntimeError as error:
        remedy = "see what it says; the registered version is as it was"
        raise DataError(f"plain transformers cannot load the export: {error}", where=folder, remedy=remedy) from error
    wrong = template.difference(
        source.tokenizer, rows * len(adapted.forms), ours * len(adapted.forms), found["conversations"]
    )
    if wrong:
        raise DataError(
            f"the export's own tokenizer writes other tokens: {wrong}", where=folder, remedy=template.REMEDY
        )
    if file:
        gguf_file.compare(source, found)
    answered = questions.check(source, asked, found, asks)
    return facts(source, form, adapted, rows, ours, found) | {"questions": answered}


def facts(
    source: Source, form: str, adapted: Adapted, rows: list[Record], ours: list[list[int] | None], found: Found
) -> dict[str, Any]:
    """Return what the export is and how it was compared, as export.json says it."""
    compared = sum(one is not None for one in ours) * len(adapted.forms)
    return {
        "name": source.version.name,
        "version": source.version.number,
        "format": form,
        "weights_sha256": source.version.tags["weights_sha256"],
        "architecture": found["model"],
        "model_type": found["config"]["model_type"],
        "prompt": source.prompt,
        "template": {
            "rows": compared,
            "left_out": len(rows) * len(adapted.forms) - compared,
            "added": list(adapted.added),
            "arguments_as": list(adapted.forms),
        },
    }


def finish(source: Source, folder: Path, found: dict[str, Any], key: Path | None) -> None:
    """Write what stands beside the model: card, record, facts, bill of materials, sums,
    signature.
    """
    (folder / "lineage.json").write_text(json.dumps(source.record, indent=1) + "\n", encoding="utf-8")
    (folder / FACTS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card.write(source, found, signed=key is not None), encoding="utf-8")
    for old in (bom.FILE, signing.SUMS, signing.SIGNATURE):
        whole_files.remove(folder / old)
    bill = json.dumps(bom.document(source, folder, found), indent=1, ensure_ascii=False)
    (folder / bom.FILE).write_text(bill + "\n", encoding="utf-8")
    signing.write_sums(folder)
    if key:
        signing.sign(folder, key)


if __name__ == "__main__":
    process.run("export", main, again="python -m flows.export")
