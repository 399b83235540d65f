"""A promotion in the working folder, and what is then in the registry."""

import json
from pathlib import Path
from typing import Any

from stages import promote
from stages.common.release import promotion_history, registry
from stages.common.tracking import mlflow_store

CARD = Path("reports/model_card.md")


def run(**options: Path) -> dict[str, Any]:
    report = Path("reports/promote.json")
    promote.main(Path("reports/evaluate"), Path("models"), report, CARD, **options)
    return dict(json.loads(report.read_text(encoding="utf-8")))


def state() -> dict[str, Any]:
    """Return the aliases, each with its candidate, and how many versions there are."""
    client = mlflow_store.client()
    found = {alias: registry.with_alias(client, "lathe", alias) for alias in ("champion", "previous", "challenger")}
    aliases = {alias: (version.number, version.tags["candidate"]) for alias, version in found.items() if version}
    return aliases | {"versions": len(client.search_model_versions("name = 'lathe'"))}


def history() -> list[tuple[str, str, str | None, str | None]]:
    return [(line["candidate"], line["action"], line["from"], line["to"]) for line in promotion_history.read()]


def tags(number: str) -> dict[str, str]:
    return registry.numbered(mlflow_store.client(), "lathe", number).tags


def setting(**values: object) -> None:
    """Set keys of section promote."""
    lines = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in values.items())
    kept = [
        line
        for line in Path("params.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
        if not line.strip().startswith(tuple(f"{name}:" for name in values))
    ]
    Path("params.yaml").write_text("".join(kept).replace("promote:\n", f"promote:\n{lines}"), encoding="utf-8")
