"""Drives a server with boto3: create, put, read through a split and a merge, subscribe. Its argument is the server's address."""

import sys
import threading

import boto3
from botocore.config import Config

kinesis = boto3.client(
    "kinesis",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id="me",
    aws_secret_access_key="secret",
    config=Config(retries={"max_attempts": 1}),
)
HALF = str(2**127)


def put(first, count):
    records = [{"Data": f"record {n}".encode(), "PartitionKey": f"key-{n}"} for n in range(first, first + count)]
    answer = kinesis.put_records(StreamName="boto", Records=records)
    assert answer["FailedRecordCount"] == 0, answer


def shards(**filter_by):
    """Page by page; not by boto3's paginator, which names the stream beside the token, and is refused by the service too."""
    answer = kinesis.list_shards(StreamName="boto", MaxResults=1, **filter_by)
    found = answer["Shards"]
    while "NextToken" in answer:
        answer = kinesis.list_shards(NextToken=answer["NextToken"], MaxResults=1)
        found += answer["Shards"]
    return found


def drain(shard_id):
    """Everything in a shard, and its children, once it is closed."""
    iterator = kinesis.get_shard_iterator(StreamName="boto", ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    records = []
    while True:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=7)
        records += answer["Records"]
        iterator = answer.get("NextShardIterator")
        if iterator is None:
            return records, answer["ChildShards"]
        if answer["MillisBehindLatest"] == 0:
            return records, []


def walk():
    """All records, parents before children."""
    waiting = [shard["ShardId"] for shard in shards(ShardFilter={"Type": "AT_TRIM_HORIZON"})]
    done, seen = set(), []
    while waiting:
        shard_id = waiting.pop(0)
        if shard_id in done:
            continue
        records, children = drain(shard_id)
        done.add(shard_id)
        seen += records
        waiting += [child["ShardId"] for child in children if set(child["ParentShards"]) <= done]
    return seen


def share_a_queue():
    """Two do: one waits, gets a record and fails at it, the other one does it."""
    kinesis.create_stream(StreamName="demand", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    stream = kinesis.describe_stream_summary(StreamName="demand")["StreamDescriptionSummary"]["StreamARN"]
    queue = kinesis.create_queue(QueueName="mails", StreamConfigurationList=[{"StreamARN": stream}])["QueueDescription"]["QueueARN"]
    threading.Timer(0.5, kinesis.put_record, kwargs={"StreamName": "demand", "Data": b"one", "PartitionKey": "a"}).start()
    (first,) = kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=20)["QueueRecords"]
    kinesis.update_queue_records_visibility(
        QueueARN=queue, Entries=[{"ReceiptHandle": first["ReceiptHandle"], "VisibilityTimeoutSeconds": 0}]
    )
    (second,) = kinesis.receive_queue_records(QueueARN=queue)["QueueRecords"]
    assert (second["Data"], second["RecordId"], second["ReceiveCount"]) == (b"one", first["RecordId"], 2), second
    outcomes = kinesis.acknowledge_queue_records(
        QueueARN=queue, Entries=[{"ReceiptHandle": record["ReceiptHandle"]} for record in (first, second)]
    )
    assert [entry["ReceiptHandle"] for entry in outcomes["Successful"]] == [second["ReceiptHandle"]], outcomes
    assert [entry["ErrorCode"] for entry in outcomes["Failed"]] == ["ResourceNotFoundException"], outcomes
    kinesis.delete_queue(QueueARN=queue)
    kinesis.delete_stream(StreamName="demand")


kinesis.create_stream(StreamName="boto", ShardCount=1)
kinesis.get_waiter("stream_exists").wait(StreamName="boto")
put(0, 20)
kinesis.split_shard(StreamName="boto", ShardToSplit="shardId-000000000000", NewStartingHashKey=HALF)
put(20, 20)
kinesis.merge_shards(StreamName="boto", ShardToMerge="shardId-000000000001", AdjacentShardToMerge="shardId-000000000002")
put(40, 20)

assert [shard["ShardId"][-1] for shard in shards()] == ["0", "1", "2", "3"]
seen = walk()
assert sorted(int(record["PartitionKey"].split("-")[1]) for record in seen) == list(range(60)), len(seen)
assert all(record["Data"].decode().split()[1] == record["PartitionKey"].split("-")[1] for record in seen)
numbers = [int(record["SequenceNumber"]) for record in seen]
assert len(set(numbers)) == 60

arn = kinesis.describe_stream_summary(StreamName="boto")["StreamDescriptionSummary"]["StreamARN"]
consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]["ConsumerARN"]
subscription = kinesis.subscribe_to_shard(
    ConsumerARN=consumer, ShardId="shardId-000000000000", StartingPosition={"Type": "TRIM_HORIZON"}
)
events = [event["SubscribeToShardEvent"] for event in subscription["EventStream"]]
assert sum(len(event["Records"]) for event in events) == 20
assert [child["ShardId"][-1] for child in events[-1]["ChildShards"]] == ["1", "2"]

try:
    kinesis.put_record(StreamName="none", Data=b"", PartitionKey="a")
    raise AssertionError("there is no such stream")
except kinesis.exceptions.ResourceNotFoundException as error:
    assert "Stream none under account 000000000000 not found." in str(error)
try:
    kinesis.create_stream(StreamName="boto", ShardCount=1)
    raise AssertionError("the stream is there already")
except kinesis.exceptions.ResourceInUseException:
    pass

if hasattr(kinesis, "create_queue"):  # an older boto3 has none
    share_a_queue()
kinesis.delete_stream(StreamName="boto", EnforceConsumerDeletion=True)
kinesis.get_waiter("stream_not_exists").wait(StreamName="boto")
print("fine")
