"""The README.md of an export: how it is loaded, what was checked, and the version's model card."""

from typing import Any

from flows.export import bom, signing
from flows.export.source import Source

LOAD = {
    "hf": """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}")
messages = [{{"role": "user", "content": "…"}}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))
```
""",
    "gguf": """\
```
llama-cli -m model.gguf
```
or with transformers: `AutoModelForCausalLM.from_pretrained("{folder}", gguf_file="model.gguf")`.
""",
}


def write(source: Source, found: dict[str, Any], *, signed: bool) -> str:
    """Return the page in Markdown, with the lines that the Hugging Face hub reads first."""
    parts = [front(source), f"# {source.title} ({found['format']})\n"]
    parts += [f"Version {found['version']} of `{found['name']}`, weights `{found['weights_sha256']}`.\n"]
    parts += ["## Load it\n", LOAD[found["format"]].format(folder=f"{source.title}-{found['format']}")]
    parts += ["## What was checked\n", "\n".join(checked(found, signed=signed)) + "\n"]
    parts += ["## Model card\n", source.description or "The version has no description."]
    return "\n".join(parts).rstrip() + "\n"


def front(source: Source) -> str:
    """Return what the hub reads of a model's page."""
    lines = ["library_name: transformers", "pipeline_tag: text-generation"]
    for one in bom.base(source):
        lines.append(f"base_model: {one['name']}")
        lines += [f"license: {licence['license']['name']}" for licence in one.get("licenses", [])]
    return "\n".join(["---", *lines, "---", ""])


def checked(found: dict[str, Any], *, signed: bool) -> list[str]:
    """Return a line for each check."""
    rendered, asked = found["template"], found["questions"]
    lines = [f"- {rendered['rows']} renderings of conversations have the tokens of training."]
    if rendered["added"]:
        lines.append(f"- The template was given a beginning for that: {' and '.join(rendered['added'])}.")
    ways = " or ".join({"objects": "an object", "text": "JSON text"}[way] for way in rendered["arguments_as"])
    lines.append(f"- A tool call's arguments may be given as {ways}.")
    lines.append(f"- {asked['asked']} questions of the test were asked again: {asked['equal']} answers are equal.")
    if asked["accuracy_after"] is not None:
        before = "unknown" if asked["accuracy_before"] is None else f"{asked['accuracy_before']:.1%}"
        lines.append(f"- Accuracy on them: {before} before, {asked['accuracy_after']:.1%} after.")
    lines.append(f"- `sha256sum -c {signing.SUMS}` compares every file.")
    if signed:
        lines.append(
            f"- `model_signing verify key . --signature {signing.SIGNATURE} --public_key KEY` verifies the signature."
        )
    lines.append(
        f"- `{bom.FILE}` is a CycloneDX 1.6 bill of materials; `lineage.json` is the record of how it was made."
    )
    return lines
