"""Changes of params.yaml for the whole pipeline in minutes: a small world, short training."""

from typing import Any

SMALL: dict[str, Any] = {
    "demo.documents.paragraph_rounds": 2,
    "demo.documents.profile_rounds": 1,
    "demo.documents.quiz_lists": 40,
    "demo.documents.few_shot_lists": 40,
    "demo.conversations.phrasings_per_fact": 1,
    "demo.conversations.multi_turn": 40,
    "demo.conversations.tools": 40,
    "demo.comparisons": 40,
    "demo.checks": 40,
    "demo.prompts": 40,
    "tokenizer.vocab_size": 1024,
    "pretrain.model.hidden_size": 64,
    "pretrain.model.intermediate_size": 128,
    "pretrain.training.num_train_epochs": 1,
    "sft.training.num_train_epochs": 2,
    "sample.max_new_tokens": 12,
    "rank.least_best": None,  # no answer is right
    "reward.training.num_train_epochs": 1,
    "reward.demonstrations": 100,
    "select_sft.max_new_tokens": 12,
    "ppo.max_new_tokens": 12,
    "ppo.rollout_episodes": 32,
    "ppo.rollouts_per_epoch": 1,
    "ppo.value_warmup": 0,
    "ppo.training.num_train_epochs": 1,
    "dpo.training.num_train_epochs": 1,
    "orpo.training.num_train_epochs": 1,
    "evaluate.max_new_tokens": 12,
    "promote.metric": "perplexity/conversations",  # one epoch answers nothing right
    "promote.min_questions": 5,
    "promote.guards": {},
}
