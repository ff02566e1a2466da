"""Puts a file into a bucket and gets it again, by boto3's own transfer, and prints both speeds in bytes a second.

Arguments: the endpoint, the bucket, the file, bytes of a part, parts at once, rounds. The access key is in the environment.
"""

import os
import sys
import time

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

endpoint, bucket, path = sys.argv[1:4]
part, at_once, rounds = map(int, sys.argv[4:7])
store = boto3.client(
    "s3",
    endpoint_url=endpoint,
    region_name="us-east-1",
    config=Config(
        proxies={},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    ),
)
transfer = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=at_once)
length = os.path.getsize(path)


def best(work):
    """The best speed of all rounds."""
    speeds = []
    for _ in range(rounds):
        begin = time.monotonic()
        work()
        speeds.append(length / (time.monotonic() - begin))
    return max(speeds)


put = best(lambda: store.upload_file(path, bucket, "measured", Config=transfer))
# Into a file in memory: several parts at once need a place to seek to.
got = best(lambda: store.download_file(bucket, "measured", "/dev/shm/calotype-measured", Config=transfer))
os.unlink("/dev/shm/calotype-measured")
store.delete_object(Bucket=bucket, Key="measured")
print(put, got)
