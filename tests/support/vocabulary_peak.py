"""The most memory that reading answers of 512 tokens takes at a vocabulary of 151,936, in a process
of its own.

python -m tests.support.vocabulary_peak <ppo | ppo-step | evaluate> <answers>
prints MiB above what the process held before
"""

import resource
import subprocess
import sys
from typing import Any

VOCABULARY, TOKENS, PROMPT = 151_936, 512, 8
NARROW = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
"""So narrow that all but the logits is small: 297 MiB an answer in fp32."""
READERS = ("ppo", "ppo-step", "evaluate")


def read(reader: str, model: Any, answers: int) -> None:
    """Read as PPO does without gradients, as its step does with them, or as evaluation does."""
    import torch

    from stages.common.core.chat import Encoded
    from stages.common.evaluation import perplexity
    from stages.common.ppo import actor_critic

    episodes = actor_critic.Episodes([[5] * PROMPT] * answers, [[7] * TOKENS] * answers)
    if reader == "evaluate":
        perplexity.batch_losses(model, [Encoded([5] * TOKENS, [1] * TOKENS)] * answers)
    elif reader == "ppo":
        with torch.no_grad():
            actor_critic.log_probabilities(model, episodes, 1.0)
    else:
        actor_critic.log_probabilities(model, episodes, 1.0).mean().backward()


def main(reader: str, answers: int) -> None:
    """Print how much a reader's peak is above what the process held before."""
    from stages.common.core import models

    model = models.build(NARROW, VOCABULARY, "test.model").eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(reader, model, answers)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def measured(reader: str, answers: int) -> int:
    """Return the MiB that a reader takes for so many answers, in a process of its own."""
    command = [sys.executable, "-m", "tests.support.vocabulary_peak", reader, str(answers)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
