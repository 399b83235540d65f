"""The most memory that reading 64 answers of 512 tokens takes at a vocabulary of 151,936, in a
process of its own.

python -m tests.support.vocabulary_peak <ppo | ppo-step | evaluate>    prints MiB above the model's
"""

import resource
import subprocess
import sys
from typing import Any

VOCABULARY, ANSWERS, TOKENS, PROMPT = 151_936, 64, 512, 8
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
"""So narrow that all but the logits is small: held at once they would be 18.5 GiB in fp32."""
READERS = ("ppo", "ppo-step", "evaluate")


def read(reader: str, model: Any) -> None:
    """Read as PPO does without gradients, as its step does with them, or as evaluation does."""
    import torch

    from stages.common.core.chat import Encoded
    from stages.common.evaluation import perplexity
    from stages.common.ppo import actor_critic

    episodes = actor_critic.Episodes([[5] * PROMPT] * ANSWERS, [[7] * TOKENS] * ANSWERS)
    if reader == "evaluate":
        perplexity.batch_losses(model, [Encoded([5] * TOKENS, [1] * TOKENS)] * ANSWERS)
    elif reader == "ppo":
        with torch.no_grad():
            actor_critic.log_probabilities(model, episodes, 1.0)
    else:
        actor_critic.log_probabilities(model, episodes, 1.0).mean().backward()


def main(reader: str) -> None:
    """Print how much a reader's peak is above what the process held before."""
    from stages.common.core import models

    model = models.build(NARROW, VOCABULARY, "test.model").eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(reader, model)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def measured(reader: str) -> int:
    """Return the MiB that a reader takes in a process of its own."""
    command = [sys.executable, "-m", "tests.support.vocabulary_peak", reader]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    main(sys.argv[1])
