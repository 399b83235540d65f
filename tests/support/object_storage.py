"""S3 on loopback: moto's server in a thread, with one bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
"""What every other process that asks it has to have in its environment."""


@contextmanager
def serving(bucket: str) -> Iterator[str]:
    """Give the address of an S3 that has this bucket."""
    import httpx
    from moto.server import ThreadedMotoServer

    storage = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    storage.start()
    host, port = storage.get_host_and_port()
    address = f"http://{host}:{port}"
    client(address).create_bucket(Bucket=bucket)
    try:
        yield address
    finally:
        httpx.post(f"{address}/moto-api/reset", trust_env=False)  # it keeps what it holds for the next one
        storage.stop()


def client(address: str) -> Any:
    """Return a client that needs nothing of the environment."""
    import boto3

    key, secret, region = KEYS.values()
    named = {"aws_access_key_id": key, "aws_secret_access_key": secret, "region_name": region}
    return boto3.client("s3", endpoint_url=address, **named)


def stored(address: str, bucket: str) -> list[str]:
    """Return the keys of all that is in the bucket."""
    pages = client(address).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
