"""The files for Docker and SkyPilot against those who read them, and the commands of
docs/operate.md for machines elsewhere. Nobody is asked over the network.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.infra.test_cluster import K8S, rendered
from tests.infra.test_containers import split, usage

ROOT = Path(__file__).parents[2]
SKYPILOT = """
import json, sys, yaml, sky
task = sky.Task.from_yaml_config(yaml.safe_load(open(sys.argv[1])), secrets_overrides=json.loads(sys.argv[2]))
found = sorted((next(iter(one.accelerators)), one.use_spot) for one in task.resources)
print(task.name, found)
"""
PAGE = re.findall(r"^```\n(.*?)^```", (ROOT / "docs/operate.md").read_text(), flags=re.MULTILINE | re.DOTALL)
LINES = [line.partition("  #")[0] for block in PAGE for line in block.splitlines()]


def test_a_run_in_docker_is_bound_as_narrowly() -> None:
    made = rendered("docker", devices=[{"count": 2, "capabilities": [["gpu"]]}])
    kept = made["container_create_kwargs"]
    assert (
        kept["read_only"] and kept["cap_drop"] == ["ALL"] and kept["user"] == "10001:10001" and not made["privileged"]
    )
    assert kept["security_opt"] == ["no-new-privileges:true"] and made["mem_limit"] == made["memswap_limit"] == "64g"
    assert kept["device_requests"][0]["count"] == 2 and made["volumes"][1].endswith(":ro")
    from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS

    assert set(kept) <= {*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS}


def test_skypilot_parses_the_spot_task(tmp_path: Path) -> None:
    python = os.environ.get("SKYPILOT_PYTHON", sys.executable)
    environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    has = subprocess.run([python, "-c", "import sky"], env=environment, capture_output=True, check=False)
    if has.returncode:
        pytest.skip("skypilot is not installed (it wants an older click); SKYPILOT_PYTHON names an interpreter with it")
    secrets = json.dumps({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    command = [python, "-c", SKYPILOT, str(ROOT / "infra/skypilot/train.yaml"), secrets]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "lathe [('A100-80GB', True), ('H100', True)]"


def test_the_script_of_the_spot_task_is_a_shell_script_and_calls_what_there_is() -> None:
    task = yaml.safe_load((ROOT / "infra/skypilot/train.yaml").read_text())
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    assert task["resources"]["use_spot"] and set(task["secrets"].values()) == {None}
    assert "--until" in usage((str(Path(sys.executable).with_name("lathe")), "flow"))


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("prefect ")])
def test_a_command_of_the_page_exists_and_knows_its_options(line: str) -> None:
    program, options = split(line.replace("lathe-gpu", "lathe"))
    text = usage(program)
    assert options and all(re.search(rf"{option}\b", text) for option in options)


def test_the_page_and_the_kustomization_say_the_same_and_name_files_there_are() -> None:
    kubectl = [line for line in LINES if line.startswith("kubectl ")]
    assert [line.removeprefix("#   ") for line in (K8S / "kustomization.yaml").read_text().splitlines()[:7]][
        3:
    ] == kubectl
    named_files = [word for line in LINES for word in line.split() if word.startswith("infra/")]
    assert len(named_files) >= 3 and all((ROOT / name).exists() for name in named_files)
