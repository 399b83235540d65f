"""What shows that an export is as it was made: SHA256SUMS always, a signature where a key is given.

The signature is model-signing's (OpenSSF): `model.sig` over every other file, by a private key that
stays where it is. SHA256SUMS alone is no signature: who changes a file can change it too.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import models
from stages.common.runtime.errors import DataError, ParamsError

if TYPE_CHECKING:
    from model_signing import hashing, signing

SUMS, SIGNATURE = "SHA256SUMS", "model.sig"
KEY, PASSWORD = "LATHE_SIGNING_KEY", "LATHE_SIGNING_PASSWORD"


def check(key: Path | None) -> None:
    """Raise ParamsError, before anything is written, for a key that cannot sign here."""
    if key is None:
        return
    if not key.is_file():
        raise ParamsError("no such key", where=key, remedy="openssl ecparam -name prime256v1 -genkey -noout -out KEY")
    try:
        import model_signing  # noqa: F401  # only where it is asked for
    except ModuleNotFoundError as error:
        remedy = "pip install -c constraints.txt -e '.[export]'"
        raise ParamsError(f"a signature needs a package that is missing: {error.name}", remedy=remedy) from error
    _signer(key)


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file, as `sha256sum -c SHA256SUMS` reads them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in (SUMS, SIGNATURE))
    lines = [f"{models.file_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def sign(folder: Path, key: Path) -> None:
    """Sign every file of the folder, and verify that with the key's public half. Raises DataError
    where it does not hold.
    """
    folder = folder.resolve()
    _signer(key).set_hashing_config(_hashing(folder)).sign(folder, folder / SIGNATURE)
    verify(folder, key)


def verify(folder: Path, key: Path) -> None:
    """Raise DataError where a file of the folder is not what was signed with the private `key`."""
    from cryptography.hazmat.primitives import serialization
    from model_signing import verifying

    folder = folder.resolve()  # what is left out is known by its whole path
    private = serialization.load_pem_private_key(key.read_bytes(), _password())
    kind, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    with tempfile.TemporaryDirectory() as scratch:
        public = Path(scratch) / "public.pem"
        public.write_bytes(private.public_key().public_bytes(kind, form))
        config = verifying.Config().use_elliptic_key_verifier(public_key=public)
        try:
            config.set_hashing_config(_hashing(folder)).verify(folder, folder / SIGNATURE)
        except ValueError as error:
            raise DataError(f"its signature does not hold: {error}", where=folder, remedy="export it again") from error


def _signer(key: Path) -> "signing.Config":
    from model_signing import signing

    password: Any = _password()  # annotated as text; what reads the key takes bytes alone
    try:
        return signing.Config().use_elliptic_key_signer(private_key=key, password=password)
    except (ValueError, TypeError) as error:
        what = f"not an elliptic-curve private key that can be read: {str(error).splitlines()[0]}"
        raise ParamsError(what, where=key, remedy=f"an encrypted one needs {PASSWORD}") from error


def _hashing(folder: Path) -> "hashing.Config":
    """Return what is hashed: every file but the signature."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE])


def _password() -> bytes | None:
    return os.environ[PASSWORD].encode() if os.environ.get(PASSWORD) else None
