"""An export loaded as anybody loads it: by transformers alone, in a process of its own.

The file is run as a script outside the project (`python -I plain.py`), so nothing of Lathe can
help: no attention that is registered, no template that is patched. It reads a job as JSON from
stdin and writes what it found as JSON to stdout; `apart` is the project's side of that.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Job = dict[str, Any]
"""folder; gguf_file (name or None); dtype; device; conversations: [{messages, tools, prompt}];
questions: [{messages} | {text} | {ids}]; max_new_tokens; weights: whether to hash the tensors; eos:
where answers end, if not where the folder's own config says.
"""
Found = dict[str, Any]
"""model: its class; config; eos; conversations: [ids or None where the template refuses]; prompts
and answers: [ids]; weights: name -> SHA-256 of the fp32 values.
"""
EVERY = 10
TELLS = "export: "
"""How a line begins that is for people."""


def found(job: Job) -> Found:
    """Load the folder and return what the job asks."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": job["gguf_file"]} if job["gguf_file"] else {}
    tokenizer = AutoTokenizer.from_pretrained(job["folder"], trust_remote_code=False, **given)
    dtype = getattr(torch, job["dtype"])
    model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype, trust_remote_code=False, **given)
    model = model.to(job["device"]).eval()
    ends = job.get("eos") or _ends(model)
    prompts = [_prompt(tokenizer, question) for question in job["questions"]]
    return {
        "model": type(model).__name__,
        "config": model.config.to_dict(),
        "eos": ends,
        "conversations": [_rendered(tokenizer, one) for one in job["conversations"]],
        "prompts": prompts,
        "answers": list(_answers(model, prompts, ends, job["max_new_tokens"])),
        "weights": _hashes(model) if job["weights"] else {},
    }


def _rendered(tokenizer: Any, one: dict[str, Any]) -> list[int] | None:
    """Return a conversation's ids, or None where the template refuses it."""
    from jinja2 import TemplateError

    try:
        batch = tokenizer.apply_chat_template(
            one["messages"],
            tools=one["tools"],
            add_generation_prompt=one["prompt"],
            tokenize=True,
            return_dict=True,
        )
    except (TemplateError, TypeError, ValueError):
        return None
    return list(batch["input_ids"])


def _prompt(tokenizer: Any, question: dict[str, Any]) -> list[int]:
    if "ids" in question:
        return list(question["ids"])
    if "text" in question:
        return list(tokenizer(question["text"])["input_ids"])
    return _rendered(tokenizer, {"messages": question["messages"], "tools": None, "prompt": True}) or []


def _ends(model: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _answers(model: Any, prompts: list[list[int]], ends: list[int], most: int) -> Iterator[list[int]]:
    """Yield each greedy answer up to one of `ends`."""
    import torch
    from transformers import GenerationConfig

    limit = getattr(model.config, "max_position_embeddings", None)
    for number, ids in enumerate(prompts, start=1):
        room = min(most, limit - len(ids)) if limit else most
        if not ids or room < 1:
            yield []
            continue
        how = GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # what is not said here comes from the model's own config
            max_new_tokens=room,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
        )
        row = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            output = model.generate(input_ids=row, attention_mask=torch.ones_like(row), generation_config=how)
        said = output[0, len(ids) :].tolist()
        yield next((said[:at] for at, token in enumerate(said) if token in ends), said)
        if number % EVERY == 0:
            print(f"{TELLS}{number} of {len(prompts)} questions asked", file=sys.stderr, flush=True)


def _hashes(model: Any) -> dict[str, str]:
    import hashlib

    return {
        name: hashlib.sha256(value.float().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, value in model.state_dict().items()
    }


def apart(job: Job) -> Found:
    """Return what a new process finds that knows transformers and this file alone.

    What it says of its progress is printed. Raises RuntimeError with its last line where it fails.
    """
    command = [sys.executable, "-I", str(Path(__file__).resolve())]
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    pipe, said = subprocess.PIPE, ""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as output:
        json.dump(job, given)
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=output, stderr=pipe, text=True, env=surroundings)
        try:
            for line in process.stderr or ():
                said = line.strip() or said
                if line.startswith(TELLS):
                    print(line.removeprefix(TELLS), end="", flush=True)
            process.wait()
        except BaseException:  # a stop request too: it must not outlive this process
            process.kill()
            process.wait()
            raise
        if process.returncode:
            raise RuntimeError(said or f"it ended with {process.returncode}")
        output.seek(0)
        return dict(json.loads(output.read().splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(found(json.load(sys.stdin))))
