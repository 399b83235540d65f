"""A version exported for plain transformers: the same tokens and answers, whole or not there."""

import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from flows.export import __main__ as export
from flows.export import bom, hf, plain, signing
from flows.export import source as sources
from stages.common.core import models
from stages.common.runtime.errors import DataError, ParamsError

Run = Callable[..., Path]
SCHEMAS = files("cyclonedx.schema") / "_res"


def key(folder: Path, password: str = "") -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    how = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    made = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(made.private_bytes(serialization.Encoding.PEM, form, how))
    return folder / "key.pem"


def valid(document: dict[str, Any]) -> None:
    """Raise where a document is not as CycloneDX's schema wants it."""
    names = {"spdx": "spdx.SNAPSHOT.schema.json", "jsf": "jsf-0.82.SNAPSHOT.schema.json"}
    read = {file: json.loads((SCHEMAS / file).read_text(encoding="utf-8")) for file in names.values()}
    registry: Registry[Any] = Registry().with_resources(
        [(f"http://cyclonedx.org/schema/{file}", Resource.from_contents(content)) for file, content in read.items()]
    )
    schema = json.loads((SCHEMAS / "bom-1.6.SNAPSHOT.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema, registry=registry).validate(document)


@pytest.mark.slow
def test_an_export_is_loaded_by_transformers_alone_and_answers_as_the_version_did(run: Run, tmp_path: Path) -> None:
    folder = run(key=key(tmp_path))
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert facts["questions"] | {"accuracy_before": 0, "accuracy_after": 0} == {
        "asked": 4,
        "compared_with": "kept evaluation",
        "equal": 4,
        "accuracy_before": 0,
        "accuracy_after": 0,
        "empty": 0,
    }
    assert facts["template"]["rows"] >= 15 and facts["template"]["left_out"] == 0
    assert models.weights_sha256(folder) == facts["weights_sha256"]
    assert {file.name for file in folder.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "README.md", "lineage.json", "export.json", "bom.cdx.json", "SHA256SUMS", "model.sig"),
    }
    valid(json.loads((folder / "bom.cdx.json").read_text(encoding="utf-8")))
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    signing.verify(folder, tmp_path / "key.pem")
    (folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match="its signature does not hold"):
        signing.verify(folder, tmp_path / "key.pem")


@pytest.mark.usefixtures("here")
def test_an_export_is_not_overwritten_unless_that_is_meant(run: Run) -> None:
    folder = run(ask=0)
    (folder / "of-before").touch()
    with pytest.raises(DataError, match="there is an export already; remove it, or give --force"):
        run(ask=0)
    run(ask=0, force=True)
    assert not (folder / "of-before").exists() and (folder / "SHA256SUMS").exists()
    assert not list(folder.parent.glob(".*"))


@pytest.mark.usefixtures("here")
def test_answers_that_the_registered_files_do_not_give_are_an_error_and_leave_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(job: plain.Job) -> plain.Found:
        found = plain.found(job)
        if "partial" in job["folder"]:
            found["answers"][2] = [*found["answers"][2][::-1], 65]
        return found

    monkeypatch.setattr(plain, "apart", damaged)
    with pytest.raises(DataError, match=r"the export answers .* the registered model"):
        run()
    assert not list(Path("exports").iterdir())


@pytest.mark.usefixtures("here")
def test_an_answer_that_the_way_of_asking_changed_is_counted(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    file = Path("reports/evaluate/sft/answers.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[0] |= {"answer": "town 0", "correct": True}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    facts = json.loads((run() / "export.json").read_text(encoding="utf-8"))["questions"]
    assert (facts["equal"], facts["accuracy_before"], facts["accuracy_after"]) == (3, 0.25, 0.0)


@pytest.mark.usefixtures("here")
def test_without_a_kept_evaluation_the_registered_files_are_asked_beside(run: Run, project: Path) -> None:
    shutil.move(project / "reports", project / "away")
    try:
        facts = json.loads((run() / "export.json").read_text(encoding="utf-8"))["questions"]
    finally:
        shutil.move(project / "away", project / "reports")
    assert (facts["compared_with"], facts["equal"], facts["accuracy_before"]) == ("registered files", 4, None)


def test_other_questions_than_the_evaluation_s_are_refused(run: Run) -> None:
    file = Path("reports/evaluate/sft/answers.jsonl")
    file.write_text(file.read_text(encoding="utf-8").replace("q:", "p:"), encoding="utf-8")
    with pytest.raises(DataError, match="none of these questions is among those that the version was asked"):
        run()


def test_a_tokenizer_that_writes_otherwise_elsewhere_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(job: plain.Job) -> plain.Found:
        config = Path(job["folder"]) / "tokenizer.json"
        config.write_text(
            config.read_text(encoding="utf-8").replace('"individual_digits":true', '"individual_digits":false')
        )
        text = json.loads(config.read_text(encoding="utf-8"))
        text["pre_tokenizer"] = {"type": "Whitespace"}
        config.write_text(json.dumps(text))
        return plain.found(job)

    monkeypatch.setattr(plain, "apart", other)
    with pytest.raises(DataError, match="the export's own tokenizer writes other tokens: conversation 1"):
        run()
    assert not list(Path("exports").iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sparse_attention": {"window": 8, "stride": 4}}, "sparse attention .* plain transformers does not know"),
        ({"attn_implementation": "lathe_sparse"}, "sparse attention"),
        ({"auto_map": {"AutoModelForCausalLM": "own.Model"}}, "code of its own"),
    ],
)
def test_what_only_this_project_computes_is_refused_by_name(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | change))
    with pytest.raises(DataError, match=said):
        sources.refuse(tmp_path, "lathe version 1")


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="an adapter without the model below it"):
        sources.refuse(tmp_path, "lathe version 1")


@pytest.mark.parametrize(
    ("form", "said"),
    [("awq", "--format awq is not made here.*llm-compressor"), ("ggfu", "none of hf, gguf, did you mean 'gguf'")],
)
def test_a_format_that_is_not_made_is_refused(form: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        export.known(form)


def test_a_copy_that_is_whole_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"weights")
    (tmp_path / "to").write_bytes(b"weig")
    sha256 = models.file_sha256(tmp_path / "from")
    hf.copy(tmp_path / "from", tmp_path / "to", sha256)
    assert (tmp_path / "to").read_bytes() == b"weights"
    (tmp_path / "from").unlink()
    hf.copy(tmp_path / "from", tmp_path / "to", sha256)
    (tmp_path / "from").write_bytes(b"other")
    (tmp_path / "to").unlink()
    with pytest.raises(DataError, match="other bytes than the registered file"):
        hf.copy(tmp_path / "from", tmp_path / "to", sha256)


def test_a_key_that_cannot_sign_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParamsError, match="no such key"):
        signing.check(tmp_path / "key.pem")
    locked = key(tmp_path, "secret")
    with pytest.raises(ParamsError, match="an encrypted one needs LATHE_SIGNING_PASSWORD"):
        signing.check(locked)
    monkeypatch.setenv("LATHE_SIGNING_PASSWORD", "secret")
    signing.check(locked)


def test_the_bill_names_data_metrics_and_the_base_with_its_licence(project: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Base\nlicense: none\n")
    source = sources.read("1")
    source.record["params"]["pretrain"]["base"] = str(base)
    facts = {"format": "hf", "model_type": "llama", "architecture": "LlamaForCausalLM", "questions": {"asked": 4}}
    document = bom.document(source, source.folder, facts)
    valid(document)
    made = document["metadata"]["component"]
    assert (made["type"], made["version"]) == ("machine-learning-model", "1")
    assert {"ref": "data:data/raw"} in made["modelCard"]["modelParameters"]["datasets"]
    assert any(one["type"] == "accuracy" for one in made["modelCard"]["quantitativeAnalysis"]["performanceMetrics"])
    parts = {one["bom-ref"]: one for one in document["components"]}
    assert parts["data:data/facts.json"]["hashes"] == [{"alg": "MD5", "content": "d41d8cd98f00b204e9800998ecf8427e"}]
    assert parts["data:data/raw"]["properties"] == [
        {"name": "lathe:dvc", "value": "d41d8cd98f00b204e9800998ecf8427e.dir"}
    ]
    assert parts[f"base:{base}"]["licenses"] == [{"license": {"name": "apache-2.0"}}]
    weights = parts["file:model.safetensors"]["hashes"][0]
    assert weights == {"alg": "SHA-256", "content": models.file_sha256(source.folder / "model.safetensors")}
