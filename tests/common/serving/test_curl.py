"""The API as a shell uses it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from stages.common.serving.engine.champions import Champions
from tests.common.serving.conftest import served
from tests.support.attacks import BODY, CHAT

TOKEN = "a-token-of-many-characters"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(*arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", "30", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_curl_asks_whole_and_streamed_with_and_without_the_token(lasting: Champions, tmp_path: Path) -> None:
    with served(lasting, tmp_path / "page.jsonl", TOKEN) as url:
        known = ["--header", f"Authorization: Bearer {TOKEN}", "--header", "Content-Type: application/json"]
        whole = json.loads(curl(*known, "--data", BODY.decode(), url + CHAT))
        assert whole["choices"][0]["message"]["role"] == "assistant" and whole["usage"]["completion_tokens"] > 0
        body = json.dumps(json.loads(BODY) | {"stream": True, "temperature": 0})
        lines = curl("--no-buffer", *known, "--data", body, url + CHAT).split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""] and all(line.startswith("data: ") for line in lines[:-1])
        assert json.loads(lines[0][6:])["object"] == "chat.completion.chunk"
        assert curl("--output", "/dev/null", "--write-out", "%{http_code}", url + "/v1/models") == "401"
        assert json.loads(curl("--user", f"anybody:{TOKEN}", url + "/v1/models"))["data"][0]["id"] == "lathe"
