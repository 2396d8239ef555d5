"""Make the bucket that MLflow keeps artifacts in; one that exists already is left as it is."""

from __future__ import annotations

import os
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main() -> int:
    """Returns the exit code."""
    endpoint, bucket = os.environ["MLFLOW_S3_ENDPOINT_URL"], os.environ["BUCKET"]
    store = boto3.client("s3", endpoint_url=endpoint)
    try:
        known = [entry["Name"] for entry in store.list_buckets()["Buckets"]]
        if bucket not in known:
            store.create_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        print(f"error: no bucket {bucket} in the object store at {endpoint}: {error}", file=sys.stderr)
        return 1
    print(f"bucket {bucket} is there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
