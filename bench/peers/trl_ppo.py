"""TRL 1.12's side of `bench.ppo`, run by that version's own interpreter; nothing of Lathe is
imported here.

    python bench/peers/trl_ppo.py FOLDER

FOLDER holds `policy` and `reward`, models with a tokenizer, and job.json: prompts as tokens, and
what is in `main`. For every line on the standard input, a seed, it trains once from there and
answers a line of JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def counted(end: int) -> list[int]:
    """Return a list to which the length of every answer that a trainer draws is added from
    now on.
    """
    from trl.experimental.ppo import ppo_trainer  # type: ignore[import-not-found]  # 1.12 only

    generate, lengths = ppo_trainer.batch_generation, []

    def counting(*given: Any) -> Any:
        found, logits = generate(*given)
        over = (found[:, given[1].shape[1] :] == end).cumsum(1).cumsum(1)
        lengths.extend((over <= 1).sum(1).tolist())  # up to the first end and with it
        return found, logits

    ppo_trainer.batch_generation = counting
    return lengths


def build(folder: Path, job: dict[str, Any]) -> Any:
    """Return a trainer with models as they are in `folder`."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    tokenizer.eos_token_id = job["end"]
    arguments = PPOConfig(
        output_dir=str(folder / "trl"),
        total_episodes=job["updates"] * job["batch"],
        per_device_train_batch_size=job["batch"],
        num_mini_batches=1,
        num_ppo_epochs=job["epochs"],
        response_length=job["max_new_tokens"],
        stop_token_id=job["end"],
        temperature=1.0,
        **job["optimiser"],
        num_sample_generations=0,
        use_cpu=job["device"] == "cpu",
        bf16=job["device"] != "cpu",  # the stage's own choice
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    read = AutoModelForCausalLM.from_pretrained
    score = AutoModelForSequenceClassification.from_pretrained
    return PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=read(folder / "policy"),
        ref_model=read(folder / "policy"),
        reward_model=score(folder / "reward", num_labels=1),
        value_model=score(folder / "reward", num_labels=1),
        train_dataset=Dataset.from_list([{"input_ids": prompt} for prompt in job["prompts"]]),
    )


def main() -> None:
    """Train once a seed."""
    import torch

    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    replies, sys.stdout = sys.stdout, sys.stderr  # the trainer prints
    lengths = counted(job["end"])
    for line in sys.stdin:
        lengths.clear()
        trainer = build(folder, job | {"optimiser": job["optimiser"] | {"seed": int(line)}})
        start = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - start
        print(json.dumps({"seconds": seconds, "lengths": lengths}), file=replies, flush=True)


if __name__ == "__main__":
    main()
