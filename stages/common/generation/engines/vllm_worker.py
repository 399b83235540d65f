"""vLLM in a process and an environment of its own: it reads requests as lines of JSON and writes
answers so.

`vllm_process` starts this file with the other environment's Python, which has nothing of this
project: it imports the standard library and vLLM alone. What goes over the pipe are numbers and
names of folders, no text and no objects.

The first line says how to start and is answered by `ready`. Then `decode` is answered by a line
for each answer, as it ends, `load` (weights from another folder) by `loaded`, and `sleep` (let go
of weights and cache until the next `load`) by `asleep`. What fails is said in `failed`, and ends
the process. It ends with its parent too.
"""

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

PR_SET_PDEATHSIG = 1
CPU_SHARE = 4
"""On a CPU the cache of keys and values takes at most this part of the memory that is free."""
Message = dict[str, Any]


def start(order: Message) -> Any:
    """Return the engine over the model in `folder`, with room for `rows` answers at once.

    `most_tokens` is the longest prompt with its answer; None: what the model and the memory allow.
    It can sleep where it is asked to (`sleeps`) and vLLM can on this platform.
    """
    import torch
    from vllm import LLM
    from vllm.platforms import current_platform

    extra: Message = {"kv_cache_memory_bytes": order["cache_bytes"]}
    extra["enable_sleep_mode"] = bool(order["sleeps"] and current_platform.is_sleep_mode_available())
    if current_platform.is_cpu():
        # Compiling takes half a minute and gains nothing that a small model would notice.
        torch._dynamo.config.disable = True
        extra |= {"enforce_eager": True, "kv_cache_memory_bytes": _cpu_cache(order)}
        # A prompt read in two parts sets its random numbers back, which vLLM 0.32 fails to do here.
        extra["enable_chunked_prefill"] = False
    return LLM(
        model=order["folder"],
        dtype=order["dtype"],
        max_num_seqs=order["rows"],
        max_model_len=order["most_tokens"] or -1,
        skip_tokenizer_init=True,
        trust_remote_code=False,
        load_format="safetensors",
        generation_config="vllm",  # how tokens are chosen is the request's alone
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
        **extra,
    )


def _cpu_cache(order: Message) -> int:
    import psutil

    most = int(psutil.virtual_memory().available) // CPU_SHARE
    return min(order["cache_bytes"] or most, most)


def decode(engine: Any, order: Message) -> Iterator[Message]:
    """Yield each request's answer as it ends, by its number.

    `requests` holds for each: which of `prompts` it answers, its longest answer, its seed.
    """
    from vllm import SamplingParams

    # What a call answers does not hang on what the calls before it have left in the cache.
    engine.reset_prefix_cache()
    prompts, named = [], []
    for prompt, max_tokens, seed in order["requests"]:
        prompts.append({"prompt_token_ids": order["prompts"][prompt]})
        named.append(
            SamplingParams(
                **order["sampling"],
                seed=seed,
                max_tokens=max_tokens,
                stop_token_ids=order["stop"],
                ignore_eos=True,
                detokenize=False,
                logprobs=0 if order["log_probabilities"] else None,
            )
        )
    asked = engine.enqueue(prompts, named, use_tqdm=False)
    # An answer has its request's name without the random end that makes it unique in the engine.
    numbers = {name.partition("-")[0]: number for number, name in enumerate(asked)}
    while numbers:
        for output in engine.llm_engine.step():
            if output.finished:
                answer = output.outputs[0]
                tokens, scores = list(answer.token_ids), answer.logprobs or []
                found = [one[token].logprob for token, one in zip(tokens, scores, strict=False)]
                yield {"answer": numbers.pop(output.request_id), "tokens": tokens, "log_probabilities": found}


def load(engine: Any, order: Message) -> Iterator[Message]:
    """Take the weights of the model in `folder`, which is the same but for them, for all answers to
    come. An engine that sleeps gets memory for weights, reads them, then gets its cache back.
    """
    asleep = engine.llm_engine.is_sleeping()
    if asleep:
        engine.wake_up(tags=["weights"])
    engine.collective_rpc("reload_weights", kwargs={"weights_path": order["folder"]})
    if asleep:
        engine.wake_up(tags=["kv_cache"])
    engine.reset_prefix_cache()
    yield {"loaded": order["folder"]}


def sleep(engine: Any, order: Message) -> Iterator[Message]:
    """Let go of the memory of weights and cache, without a copy: others are loaded before the next
    answer.
    """
    del order
    engine.sleep(level=2)
    yield {"asleep": True}


def serve(orders: "queue.SimpleQueue[Message]", say: Callable[[Message], None]) -> None:
    """Answer one request after the other; returns only by an exception."""
    import vllm

    first = orders.get()
    engine = start(first)
    config = engine.llm_engine.vllm_config.model_config
    say({"ready": vllm.__version__, "most_tokens": config.max_model_len, "sleeps": config.enable_sleep_mode})
    work = {"decode": decode, "load": load, "sleep": sleep}
    while True:
        order = orders.get()
        for message in work[order["do"]](engine, order):
            say(message)


def listen(lines: TextIO, orders: "queue.SimpleQueue[Message]") -> None:
    """Queue what comes in; leave at once when the other end is closed, whatever is being
    answered.
    """
    for line in lines:
        orders.put(json.loads(line))
    os._exit(0)


def failure(error: Exception) -> Message:
    """Return what is said of an error, and of which kind it is."""
    text = " ".join(str(error).split()) or type(error).__name__
    lower = text.lower()
    kind = "other"
    if isinstance(error, ImportError):
        kind = "environment"
    elif "nans detected in logits" in lower:
        kind = "logits"
    elif "out of memory" in lower or "kv cache" in lower or "available memory" in lower:
        kind = "memory"
    return {"failed": f"{type(error).__name__}: {text}", "kind": kind}


def end_with_parent(parent: int) -> None:
    """Die with the parent, and only with it: a stop request is the parent's to answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main() -> None:
    """Talk over the standard pipes, which nothing else in this process can write to or read."""
    end_with_parent(int(sys.argv[1]))
    lines, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(lines, orders), daemon=True).start()

    def say(message: Message) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        serve(orders, say)
    except Exception as error:  # the boundary: the other end tells the user, the log has the traceback
        import traceback

        traceback.print_exc()
        say(failure(error))
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
