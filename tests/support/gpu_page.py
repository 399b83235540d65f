"""The tables of docs/gpu.md: what the doctor says of each profile, and what `make gpu-check`
measured.

python -m tests.support.gpu_page writes them anew.
"""

import json
import re
from contextlib import chdir
from pathlib import Path

from flows.plans import profile_plan
from flows.plans.profile_plan import Row, gibibytes
from stages.common.core import params

ROOT = Path(__file__).parents[2]
PAGE, DATA = ROOT / "docs/gpu.md", ROOT / "docs/gpu.json"
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


def measured_table() -> str:
    """Return the table of what was measured, a column a device."""
    runs = list(json.loads(DATA.read_text(encoding="utf-8")).values())
    names = list(dict.fromkeys(row["name"] for run in runs for row in run["rows"]))
    lines = [f"| | {' | '.join(run['device'] for run in runs)} |", "|" + "---|" * (len(runs) + 1)]
    versions = [f"torch {run['torch']}, transformers {run['transformers']}, trl {run['trl']}" for run in runs]
    lines.append(f"| {' | '.join(['versions', *versions])} |")
    days = [f"{run['date']}, {run['seconds']}" for run in runs]
    lines.append(f"| {' | '.join(['day, seconds in all', *days])} |")
    for name in names:
        cells = []
        for run in runs:
            row = next((row for row in run["rows"] if row["name"] == name), None)
            cells.append(f"{row['value']} {row['unit']}".strip() if row else "")
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def put(text: str, name: str, table: str) -> str:
    """Return the page with a table in its place."""
    marks = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    return pattern.sub(lambda _: table.join(marks), text)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    text = put(text, "measured", measured_table())
    PAGE.write_text(put(text, "profiles", profiles_table(plans())), encoding="utf-8")


if __name__ == "__main__":
    main()
