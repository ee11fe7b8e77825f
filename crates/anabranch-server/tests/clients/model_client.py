"""Calls every operation with boto3, and holds each answer, as it came, against the published model: members, types, ranges, patterns, names of errors.

Its arguments are the server's address and, if requests and answers are to be CBOR as those of the Java clients are, `cbor`."""

import base64
import json
import re
import sys
from datetime import datetime, timedelta, timezone

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError



def client(**options):
    """Of the server, with a botocore that tries nothing again."""
    config = Config(retries={"max_attempts": 1}, **options)
    who = {"region_name": "us-east-1", "aws_access_key_id": "me", "aws_secret_access_key": "secret"}
    return boto3.client("kinesis", endpoint_url=sys.argv[1], config=config, **who)


kinesis = client()
MODEL = kinesis.meta.service_model
HALF = str(2**127)
called = set()
problems = set()

# Where the service itself is not what its model says: at the end of a shard there is nothing to go on from.
KNOWN = {"SubscribeToShardEvent has no ContinuationSequenceNumber"}


def check(shape, value, path):
    """A value of JSON against its shape."""
    types = {
        "structure": dict, "list": list, "string": str, "blob": str, "boolean": bool,
        "integer": int, "long": int, "timestamp": (int, float),
    }
    if not isinstance(value, types[shape.type_name]):
        problems.add(f"{path} is {value!r}, no {shape.type_name}")
    elif shape.type_name == "structure":
        for name in value.keys() - shape.members.keys():
            problems.add(f"{path} has {name}, which is unknown")
        for name in set(shape.required_members) - value.keys():
            problems.add(f"{path} has no {name}")
        for name in value.keys() & shape.members.keys():
            check(shape.members[name], value[name], f"{path}.{name}")
    elif shape.type_name == "list":
        at_most(shape, len(value), path)
        for member in value:
            check(shape.member, member, f"{path}[]")
    elif shape.type_name == "string":
        at_most(shape, len(value), path)
        if len(value) < shape.metadata.get("min", 0):
            problems.add(f"{path} is {value!r}, too short")
        if shape.enum and value not in shape.enum:
            problems.add(f"{path} is {value!r}, none of {shape.enum}")
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value, re.DOTALL):
            problems.add(f"{path} is {value!r}, unlike {pattern}")
    elif shape.type_name in ("integer", "long"):
        at_most(shape, value, path)
    elif shape.type_name == "timestamp" and not 1e9 < value < 1e10:
        problems.add(f"{path} is {value!r}, no seconds of these years")


def at_most(shape, size, path):
    """The least numbers of the model are for requests: no failures, and no metrics, are none in the service's answers too."""
    if size > shape.metadata.get("max", size):
        problems.add(f"{path} is {size}, too much")


def converted(shape, value, blob, timestamp):
    """A document with its blobs and times as another format has them."""
    if shape is None or value is None:
        return value
    if shape.type_name == "structure":
        members = shape.members
        return {name: converted(members.get(name), member, blob, timestamp) for name, member in value.items()}
    if shape.type_name == "list":
        return [converted(shape.member, member, blob, timestamp) for member in value]
    return {"blob": blob, "timestamp": timestamp}.get(shape.type_name, lambda same: same)(value)


def to_cbor(shape, body):
    """As Jackson writes it: maps whose length is not told, and times that are tagged milliseconds."""
    time = lambda seconds: cbor2.CBORTag(1, round(seconds * 1000))  # noqa: E731
    return cbor2.dumps(converted(shape, json.loads(body), base64.b64decode, time), indefinite_containers=True)


def from_cbor(shape, body):
    """Blobs that are no bytes, and times that are no whole numbers, are left as they are, to be found by the check."""
    text = lambda data: base64.b64encode(data).decode() if isinstance(data, bytes) else {"no bytes": data}  # noqa: E731
    time = lambda millis: millis / 1000 if isinstance(millis, int) else {"no number": repr(millis)}  # noqa: E731
    return json.dumps(converted(shape, cbor2.loads(body), text, time)).encode()


def ask_in_cbor(model, params, **_):
    params["body"] = to_cbor(model.input_shape, params["body"])
    params["headers"]["Content-Type"] = "application/x-amz-cbor-1.1"


def read_cbor(operation_model, response_dict, **_):
    body, content_type = response_dict["body"], response_dict["headers"].get("Content-Type")
    if not body or not isinstance(body, bytes):  # or events
        return
    if content_type == "application/x-amz-cbor-1.1":
        response_dict["body"] = from_cbor(operation_model.output_shape, body)
    else:
        problems.add(f"{operation_model.name} is asked in CBOR, and answers in {content_type}")


def look(operation_model, response_dict, **_):
    """Every answer passes here before boto3 reads it."""
    name, status = operation_model.name, response_dict["status_code"]
    called.add(name)
    if operation_model.has_event_stream_output and status == 200:
        return
    body = json.loads(response_dict["body"] or b"{}")
    if status != 200:
        errors = {shape.metadata.get("error", {}).get("code", shape.name) for shape in operation_model.error_shapes}
        if body["__type"] not in errors | {"ValidationException"}:
            problems.add(f"{name} says {body['__type']}, which it does not have")
    elif operation_model.output_shape is not None:
        check(operation_model.output_shape, body, name)
    elif response_dict["body"]:
        problems.add(f"{name} says {body}, and has nothing to say")


IS_CBOR = sys.argv[2:] == ["cbor"]
if IS_CBOR:
    import cbor2
    from botocore.parsers import BaseJSONParser

    read_json = BaseJSONParser._parse_body_as_json
    # The empty document before the events, the only one that botocore reads by itself.
    BaseJSONParser._parse_body_as_json = lambda self, body: read_json(self, b"{}" if body == b"\xa0" else body)
    kinesis.meta.events.register("before-call.kinesis.*", ask_in_cbor)
    kinesis.meta.events.register("before-parse.kinesis.*", read_cbor)
kinesis.meta.events.register("before-parse.kinesis.*", look)


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, (error, code)
    else:
        raise AssertionError(f"{code} expected of {parameters}")


# Streams, records, shards.
name = {"StreamName": "model"}
kinesis.create_stream(**name, ShardCount=2, Tags={"room": "2"})
kinesis.create_stream(StreamName="demand", StreamModeDetails={"StreamMode": "ON_DEMAND"})
before = datetime.now(timezone.utc) - timedelta(minutes=1)
put = kinesis.put_record(**name, Data=b"one", PartitionKey="a")
kinesis.put_record(**name, Data=b"", PartitionKey="b", SequenceNumberForOrdering=put["SequenceNumber"], ExplicitHashKey="0")
kinesis.put_records(**name, Records=[{"Data": b"x" * 1000, "PartitionKey": str(n)} for n in range(50)])
kinesis.split_shard(**name, ShardToSplit="shardId-000000000000", NewStartingHashKey="5")
kinesis.merge_shards(**name, ShardToMerge="shardId-000000000002", AdjacentShardToMerge="shardId-000000000003")
kinesis.update_shard_count(**name, TargetShardCount=3, ScalingType="UNIFORM_SCALING")
description = kinesis.describe_stream(**name)["StreamDescription"]
arn = description["StreamARN"]
for shard in description["Shards"]:
    for kind in [
        {"ShardIteratorType": "TRIM_HORIZON"},
        {"ShardIteratorType": "LATEST"},
        {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": before},
        {
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
            "StartingSequenceNumber": shard["SequenceNumberRange"]["StartingSequenceNumber"],
        },
    ]:
        iterator = kinesis.get_shard_iterator(**name, ShardId=shard["ShardId"], **kind)["ShardIterator"]
        for _ in range(4):
            answer = kinesis.get_records(ShardIterator=iterator, Limit=20)
            assert ("NextShardIterator" in answer) != ("ChildShards" in answer), answer
            iterator = answer.get("NextShardIterator")
            if iterator is None:
                break
for kind in ["AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST"]:
    kinesis.list_shards(**name, ShardFilter={"Type": kind})
for kind in ["AT_TIMESTAMP", "FROM_TIMESTAMP"]:
    kinesis.list_shards(**name, ShardFilter={"Type": kind, "Timestamp": datetime.now(timezone.utc)}, MaxResults=1)

# Settings.
kinesis.describe_stream_summary(StreamARN=arn)
kinesis.describe_stream_summary(StreamName="demand")
kinesis.describe_limits()
assert kinesis.list_streams(Limit=1)["HasMoreStreams"]
kinesis.increase_stream_retention_period(**name, RetentionPeriodHours=48)
kinesis.decrease_stream_retention_period(**name, RetentionPeriodHours=24)
kinesis.add_tags_to_stream(**name, Tags={"team": "a b"})
kinesis.list_tags_for_stream(**name)
kinesis.remove_tags_from_stream(**name, TagKeys=["team"])
kinesis.tag_resource(ResourceARN=arn, Tags={"x": ""})
kinesis.list_tags_for_resource(ResourceARN=arn)
kinesis.untag_resource(ResourceARN=arn, TagKeys=["x"])
kinesis.enable_enhanced_monitoring(**name, ShardLevelMetrics=["ALL"])
kinesis.disable_enhanced_monitoring(**name, ShardLevelMetrics=["IncomingBytes"])
kinesis.start_stream_encryption(**name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
kinesis.put_record(**name, Data=b"secret", PartitionKey="a")
kinesis.stop_stream_encryption(**name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
kinesis.put_resource_policy(ResourceARN=arn, Policy='{"Version": "2012-10-17", "Statement": []}')
kinesis.get_resource_policy(ResourceARN=arn)
kinesis.delete_resource_policy(ResourceARN=arn)
kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=2048)
kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
kinesis.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
kinesis.update_stream_warm_throughput(StreamARN=arn, WarmThroughputMiBps=4)
kinesis.update_stream_record_distribution_strategy(StreamARN=arn, RecordDistributionStrategy="AUTO")
kinesis.put_record(**name, Data=b"anywhere", PartitionKey="a")
kinesis.update_stream_record_distribution_strategy(StreamARN=arn, RecordDistributionStrategy="USER_PARTITION_KEY")
kinesis.describe_stream_summary(**name)
kinesis.describe_account_settings()
kinesis.update_account_settings(MinimumThroughputBillingCommitment={"Status": "DISABLED"})
kinesis.describe_account_settings()

# Consumers.
consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c", Tags={"a": "b"})["Consumer"]["ConsumerARN"]
kinesis.describe_stream_consumer(ConsumerARN=consumer)
kinesis.list_stream_consumers(StreamARN=arn)
subscription = kinesis.subscribe_to_shard(
    ConsumerARN=consumer, ShardId="shardId-000000000000", StartingPosition={"Type": "TRIM_HORIZON"}
)["EventStream"]
event_shape = MODEL.shape_for("SubscribeToShardEvent")
checked = 0
for event in subscription._event_generator:  # what botocore makes its events of
    document = event.to_response_dict()
    kind = document["headers"].get(":event-type")
    if kind == "SubscribeToShardEvent":
        body = from_cbor(event_shape, document["body"]) if IS_CBOR else document["body"]
        check(event_shape, json.loads(body), "SubscribeToShardEvent")
        checked += 1
    elif kind != "initial-response":
        problems.add(f"SubscribeToShard sends {document['headers']}")
assert checked > 0
kinesis.deregister_stream_consumer(ConsumerARN=consumer)

# Queues: of the stream that is on demand.
other = kinesis.describe_stream_summary(StreamName="demand")["StreamDescriptionSummary"]["StreamARN"]
dead_letters = {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}
queue = kinesis.create_queue(
    QueueName="mails",
    StreamConfigurationList=[{"StreamARN": other, "StartingPosition": {"Type": "AT_TIMESTAMP", "Timestamp": before}}],
    QueueAttributes={"VisibilityTimeoutSeconds": 60, "DeadLetterConfiguration": dead_letters},
    Tags={"a": "b"},
)["QueueDescription"]["QueueARN"]
kinesis.create_queue(QueueName="latest", StreamConfigurationList=[{"StreamARN": other}])
kinesis.describe_queue(QueueARN=queue)
kinesis.describe_stream_summary(StreamName="demand")
assert "NextToken" in kinesis.list_queues(MaxResults=1)
(listed,) = kinesis.list_queues(StreamFilter=[{"StreamARN": other}], MaxResults=1)["QueueSummaries"]
created = listed["Streams"][0]["StreamCreationTimestamp"]
assert len(kinesis.list_queues(StreamFilter=[{"StreamARN": other, "StreamCreationTimestamp": created}])["QueueSummaries"]) == 2
kinesis.tag_resource(ResourceARN=queue, Tags={"x": ""})
kinesis.list_tags_for_resource(ResourceARN=queue)
kinesis.put_resource_policy(ResourceARN=queue, Policy='{"Version": "2012-10-17", "Statement": []}')
kinesis.get_resource_policy(ResourceARN=queue)
kinesis.put_records(StreamName="demand", Records=[{"Data": f"{n}".encode(), "PartitionKey": str(n)} for n in range(5)])


def all_of(receive, count):
    records = []
    while len(records) < count:
        records += receive(QueueARN=queue, Limit=2, WaitTimeSeconds=20)["QueueRecords"]
    return records


def entries(records, **more):
    return {"QueueARN": queue, "Entries": [{"ReceiptHandle": record["ReceiptHandle"], **more} for record in records]}


def all_done(answer, count):
    assert (len(answer["Successful"]), answer["Failed"]) == (count, []), answer


received = all_of(kinesis.receive_queue_records, 5)
assert sorted(record["Data"] for record in received) == [b"0", b"1", b"2", b"3", b"4"]
assert all(record["PartitionKey"].encode() == record["Data"] and record["ReceiveCount"] == 1 for record in received)
all_done(kinesis.acknowledge_queue_records(**entries(received[:1])), 1)
failed = kinesis.acknowledge_queue_records(QueueARN=queue, Entries=[{"ReceiptHandle": "nonsense"}])["Failed"]
assert [entry["ErrorCode"] for entry in failed] == ["InvalidArgumentException"], failed
failed = kinesis.acknowledge_queue_records(**entries(received[:1]))["Failed"]
assert [entry["ErrorCode"] for entry in failed] == ["ResourceNotFoundException"], failed
all_done(kinesis.update_queue_records_visibility(**entries(received[1:], VisibilityTimeoutSeconds=0)), 4)
dead = all_of(kinesis.receive_dead_letter_queue_records, 4)
all_done(kinesis.acknowledge_dead_letter_queue_records(**entries(dead[:2])), 2)
all_done(kinesis.restore_dead_letter_queue_records(**entries(dead[2:3])), 1)
all_done(kinesis.update_dead_letter_queue_records_visibility(**entries(dead[3:], VisibilityTimeoutSeconds=0)), 1)
assert [record["Data"] for record in all_of(kinesis.receive_queue_records, 1)] == [dead[2]["Data"]]
assert [record["RecordId"] for record in all_of(kinesis.receive_dead_letter_queue_records, 1)] == [dead[3]["RecordId"]]
kinesis.update_queue(QueueARN=queue, QueueAttributes={"DeadLetterConfiguration": {"TargetType": "NONE"}})
kinesis.describe_queue(QueueARN=queue)
assert kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
refused("ResourceInUseException", kinesis.delete_stream, StreamName="demand")
refused("ResourceInUseException", kinesis.create_queue, QueueName="mails", StreamConfigurationList=[{"StreamARN": other}])
for page in kinesis.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 1}):
    for summary in page["QueueSummaries"]:
        kinesis.delete_queue(QueueARN=summary["QueueARN"])
refused("ResourceNotFoundException", kinesis.receive_queue_records, QueueARN=queue)
refused("ResourceNotFoundException", kinesis.describe_queue, QueueARN=queue)

# Refusals.
refused("ResourceNotFoundException", kinesis.put_record, StreamName="none", Data=b"", PartitionKey="a")
refused("ResourceInUseException", kinesis.create_stream, **name, ShardCount=1)
refused("InvalidArgumentException", kinesis.get_records, ShardIterator="nonsense")
refused("ResourceNotFoundException", kinesis.describe_stream_consumer, ConsumerARN=consumer)
refused("ValidationException", kinesis.put_record, **name, Data=b"", PartitionKey="a", ExplicitHashKey="a")
refused("DryRunOperationException", kinesis.put_record, **name, Data=b"", PartitionKey="a", DryRun=True)
kinesis.delete_stream(**name)
kinesis.delete_stream(StreamName="demand")

# Nothing that is served is left out by mistake: what was not called, the server does not know.
unasked = client(parameter_validation=False)
for operation in set(MODEL.operation_names) - called:
    refused("UnknownOperationException", getattr(unasked, xform_name(operation)))
print("\n".join(sorted(problems - KNOWN)) or "fine")
