"""Libraries kept quiet: no telemetry, and no message that says nothing to a user of Lathe."""

import logging
import os

SETTINGS = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait for each other spin a microsecond, then sleep: longer halves the speed
    # beside other programs, not at all costs a fifth on an idle machine (docs/log.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "500",
}
"""What everything runs with unless the environment says otherwise. Makefile and Dockerfile set some
of it for what is started without it.
"""
NOISE = {
    # bitsandbytes looks for a faster kernel of 4-bit products; only QLoRA on a CPU has use for it.
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    # The trainer sets the config's special tokens to the tokenizer's, which is what a stage wants.
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens",
}
"""Beginnings of messages that are left out, by logger."""


class Without(logging.Filter):
    """Leaves out messages that begin so."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self.beginning = beginning

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message stays."""
        return not str(record.msg).startswith(self.beginning)


def quiet() -> None:
    """Switch off telemetry, pickles and known noise; what the environment says goes before."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name, beginning in NOISE.items():
        logger = logging.getLogger(name)
        if not any(isinstance(one, Without) for one in logger.filters):
            logger.addFilter(Without(beginning))


def without_run_log() -> None:
    """Leave out of the terminal what Prefect tells of a flow run below a warning: its beginning,
    pauses and end, which the run's page has as well.
    """
    for handler in logging.getLogger().handlers:
        if type(handler).__module__.startswith("prefect."):
            handler.setLevel(logging.WARNING)
