"""Drives a server with the AWS CLI (1, which takes data as it is) of the Python that runs this. Its argument is the server's address.

Each command goes through the CLI's own driver, as its `aws` calls it, with a session of its own; but in this process: to start a Python takes longer than all commands.
"""

import base64
import contextlib
import io
import json
import os
import sys

from awscli.clidriver import create_clidriver

os.environ.update(
    AWS_ACCESS_KEY_ID="me",
    AWS_SECRET_ACCESS_KEY="secret",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_PAGER="",
)
HALF = str(2**127)
FIRST = "shardId-000000000000"


def run(*arguments):
    """The code that `aws` would end with, and what it would print."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = create_clidriver().main(["--endpoint-url", sys.argv[1], "--output", "json", "kinesis", *arguments])
    return code, out.getvalue(), err.getvalue()


def aws(*arguments):
    """What the command printed; it has to succeed."""
    code, printed, complaint = run(*arguments)
    assert code == 0, (arguments, complaint)
    return json.loads(printed) if printed.strip() else None


def drain(shard_id):
    answer = aws("get-shard-iterator", "--stream-name", "cli", "--shard-id", shard_id, "--shard-iterator-type", "TRIM_HORIZON")
    answer = aws("get-records", "--shard-iterator", answer["ShardIterator"])
    return [base64.b64decode(record["Data"]).decode() for record in answer["Records"]], answer


aws("create-stream", "--stream-name", "cli", "--shard-count", "1")
aws("wait", "stream-exists", "--stream-name", "cli")
put = aws("put-record", "--stream-name", "cli", "--partition-key", "a", "--data", "one")
assert put["ShardId"] == FIRST, put
aws("split-shard", "--stream-name", "cli", "--shard-to-split", FIRST, "--new-starting-hash-key", HALF)
aws("put-records", "--stream-name", "cli", "--records", "PartitionKey=a,Data=two")

records, answer = drain(FIRST)
assert records == ["one"], records
assert [child["ShardId"][-1] for child in answer["ChildShards"]] == ["1", "2"], answer
assert sorted(drain("shardId-000000000001")[0] + drain("shardId-000000000002")[0]) == ["two"]

shards = aws("list-shards", "--stream-name", "cli", "--shard-filter", "Type=AT_LATEST")["Shards"]
assert [shard["ShardId"][-1] for shard in shards] == ["1", "2"], shards
assert "cli" in aws("list-streams")["StreamNames"]
code, _, complaint = run("put-record", "--stream-name", "none", "--partition-key", "a", "--data", "")
assert code != 0 and "ResourceNotFoundException" in complaint and "Stream none under account" in complaint, complaint
aws("delete-stream", "--stream-name", "cli")
print("fine")
