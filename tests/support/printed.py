"""What a user's terminal shows that neither Lathe nor DVC says."""

import re
from pathlib import Path

STAGES = "|".join(sorted(file.stem for file in (Path(__file__).parents[2] / "stages").glob("[a-z]*.py")))
OURS = re.compile(rf"lathe: |(?:{STAGES}|serve|review)(?:@\w+)?: |(?:ok  |warn|fail) \S| +-> \S")
DVCS = re.compile(
    r"Running stage '|> python -m stages\.|(?:Generating|Updating) lock file 'dvc\.lock'|Stage '\S+' (?:is|didn't)"
    r"|Verifying data sources in stage: |'\S+' didn't change, skipping"
    r"|To track the changes with git, run:|\tgit add |To enable auto staging, run:|\tdvc config core\.autostage true"
    r"|Use `dvc push` to send your updates to remote storage\."
)


def foreign(text: str) -> list[str]:
    """Return the lines of what was printed that belong to a library."""
    lines = re.split(r"[\r\n]+", text)
    return [line for line in lines if line.strip() and not OURS.match(line) and not DVCS.match(line)]
