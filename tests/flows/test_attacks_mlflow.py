"""What strangers ask of MLflow's store of files, models and webhooks as we start it: none of it
succeeds.
"""

from pathlib import Path

import httpx
import pytest

from tests.support.attacked import FILES, MLFLOW, SECRET, call, get
from tests.support.attacks import post, raw, status

on_mlflow = pytest.mark.parametrize("target", ["mlflow"], indirect=True)


@on_mlflow
@pytest.mark.parametrize(
    "path",
    [
        f"{FILES}/../../../../../../etc/passwd",
        f"{FILES}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        f"{FILES}/..%2f..%2f..%2fetc/passwd",
        f"{FILES}/%252e%252e/%252e%252e/%252e%252e/etc/passwd",
        f"{FILES}//etc/passwd",
        f"{FILES}/file:/etc/passwd",
        f"{FILES}/a%00/../../etc/passwd",
        f"{FILES}?path=../..",
        f"{FILES}?path=/etc",
        f"/ajax-api/2.0/mlflow-artifacts/artifacts/..{'/..' * 9}/etc/passwd",
        "/get-artifact?path=../../../../etc/passwd&run_uuid=a",
        "/model-versions/get-artifact?name=a&version=1&path=../../../etc/passwd",
        "/static-files/../../../../../../../../etc/passwd",
        "/static-files/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    ],
)
def test_mlflow_gives_no_file_of_the_machine(target: tuple[str, str], path: str) -> None:
    reply = get(target[1], path)
    assert status(reply) in (400, 404), reply[:300]
    assert SECRET not in reply


@on_mlflow
@pytest.mark.parametrize(
    "place", ["file:///etc", "/etc", "file:a/../../../../../../etc", "mlflow-artifacts:/../../etc"]
)
def test_an_experiment_elsewhere_shows_nothing_of_it(target: tuple[str, str], place: str) -> None:
    url = target[1]
    made = call(url, f"{MLFLOW}/experiments/create", {"name": place, "artifact_location": place})
    begun = call(url, f"{MLFLOW}/runs/create", {"experiment_id": made.json().get("experiment_id", "none")})
    run = begun.json().get("run", {}).get("info", {}).get("run_id", "none")
    for path in ("passwd", "../../passwd", "..%2f..%2fpasswd"):
        assert SECRET not in get(url, f"/get-artifact?run_uuid={run}&path={path}")
    listed = get(url, f"{MLFLOW}/artifacts/list?run_id={run}&path=../..")
    assert status(listed) == 400 and b"passwd" not in listed


@on_mlflow
@pytest.mark.parametrize(
    "source",
    ["file:///etc", "/etc", "mlflow-artifacts:/../../etc", "http://169.254.169.254/latest", "ftp://127.0.0.1/a", "a"],
)
def test_no_version_of_a_model_is_made_of_files_elsewhere(target: tuple[str, str], source: str) -> None:
    url = target[1]
    call(url, f"{MLFLOW}/registered-models/create", {"name": "stranger"})
    made = call(url, f"{MLFLOW}/model-versions/create", {"name": "stranger", "source": source})
    assert made.status_code == 400
    assert call(url, "/model-versions/get-artifact?name=stranger&version=1&path=passwd").status_code == 404


@on_mlflow
@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/a", "http://169.254.169.254/", "https://127.0.0.1/", "file:///"]
)
def test_mlflow_calls_no_address_of_the_inside(target: tuple[str, str], address: str) -> None:
    events = [{"entity": "MODEL_VERSION", "action": "CREATED"}]
    hook = {"name": "a", "url": address, "events": events}
    reply = call(target[1], f"{MLFLOW}/webhooks", hook)
    if reply.status_code == 200:  # a name is looked up when the hook is called
        test = call(target[1], f"{MLFLOW}/webhooks/{reply.json()['webhook']['webhook_id']}/test", {})
        assert test.status_code == 400 or not test.json()["result"]["success"], test.text
    else:
        assert reply.status_code == 400


@on_mlflow
@pytest.mark.parametrize("path", [f"{FILES}/../../stolen", f"{FILES}/..%2f..%2fstolen", f"{FILES}//tmp/stolen"])
def test_mlflow_writes_nowhere_else(target: tuple[str, str], path: str) -> None:
    request = post("", b"a", path, f"Host: {target[1][7:]}\r\n").replace(b"POST", b"PUT", 1)
    assert status(raw(target[1], request)) in (400, 404)
    assert not Path("/tmp/stolen").exists()


@on_mlflow
def test_a_page_among_the_artifacts_is_not_shown_as_one(target: tuple[str, str]) -> None:
    httpx.put(f"{target[1]}{FILES}/a/page.html", content=b"<script>1</script>", trust_env=False)
    headers = httpx.get(f"{target[1]}{FILES}/a/page.html", trust_env=False).headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


@on_mlflow
@pytest.mark.parametrize("filter_", ["' OR 1=1 --", "tags.a = 'b'; DROP TABLE runs", "metrics.`a` UNION SELECT 1"])
def test_a_search_is_no_sql(target: tuple[str, str], filter_: str) -> None:
    asked = {"experiment_ids": ["0"], "filter": filter_}
    assert call(target[1], f"{MLFLOW}/runs/search", asked).status_code == 400
