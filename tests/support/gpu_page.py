"""The tables of docs/gpu.md: what the doctor says of each profile, and what `make gpu-check`
measured.

python -m tests.support.gpu_page writes them anew.
"""

import re
from contextlib import chdir
from pathlib import Path

from flows.cli import profile_plan
from flows.cli.profile_plan import Row, gibibytes
from stages.common.core import params

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/gpu.md"
PROFILES = ("smollm2-135m", "qwen2.5-0.5b", "qwen3-4b-lora", "llama3.1-8b-zero3")
HOW = "write it anew: python -m tests.support.gpu_page"
STAGES = ("pretrain", "sft", "reward", "ppo", "dpo", "orpo", "sample", "select_sft", "evaluate")


def plans() -> dict[str, list[Row]]:
    """Return every profile's plan."""
    with chdir(ROOT):
        return {name: list(profile_plan.rows(params.plain(params.read_yaml(path(name))))) for name in PROFILES}


def path(name: str) -> Path:
    return Path(f"infra/profiles/{name}.yaml")


def profiles_table(planned: dict[str, list[Row]]) -> str:
    """Return the table of profiles."""
    lines = [
        f"| profile | GPUs | {' | '.join(STAGES)} | may use | disk |",
        "|" + "---|" * (len(STAGES) + 4),
    ]
    for name, rows in planned.items():
        run = params.plain(params.read_yaml(ROOT / path(name)))["run"]
        cards = f"{run['gpus']} of {run['gpu_gibibytes']}" if run["gpu_gibibytes"] else "none"
        memory = {row.stage: gibibytes(row.memory) for row in rows}
        room = gibibytes(rows[0].room) if rows[0].room else ""
        disk = f"{sum(row.disk for row in rows) / 2**30:,.0f}"
        lines.append(f"| `{name}` | {cards} | {' | '.join(memory.get(one, '') for one in STAGES)} | {room} | {disk} |")
    return "\n".join(lines)


def put(text: str, name: str, table: str) -> str:
    """Return the page with a table in its place."""
    marks = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    return pattern.sub(lambda _: table.join(marks), text)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(put(text, "profiles", profiles_table(plans())), encoding="utf-8")


if __name__ == "__main__":
    main()
