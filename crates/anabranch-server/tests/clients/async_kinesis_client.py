"""Drives a server with async-kinesis: its producer and its consumer run through a split and a merge. Its argument is the server's address."""

import asyncio
import os
import sys

os.environ.update(AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="secret")

from kinesis import Consumer, Producer  # noqa: E402, the environment comes first

WHERE = {"stream_name": "async", "endpoint_url": sys.argv[1], "region_name": "us-east-1"}
HALF = str(2**127)


def shard(number):
    return f"shardId-{number:012}"


async def produce():
    async with Producer(**WHERE, create_stream=True, create_stream_shards=1, buffer_time=0.05) as producer:
        kinesis = producer.client
        for number in range(90):
            if number == 30:
                await producer.flush()
                await kinesis.split_shard(StreamName="async", ShardToSplit=shard(0), NewStartingHashKey=HALF)
            if number == 60:
                await producer.flush()
                await kinesis.merge_shards(StreamName="async", ShardToMerge=shard(1), AdjacentShardToMerge=shard(2))
            await producer.put({"number": number}, partition_key=f"key-{number}")
        await producer.flush()


async def consume():
    """Everything, and then nothing more for a second."""
    seen = []
    async with Consumer(**WHERE, sleep_time_no_records=0.05, shard_fetch_rate=100, idle_timeout=1) as consumer:
        consumer._shard_refresh_interval = 0.2  # a minute otherwise
        for _ in range(60):
            async for record in consumer:
                seen.append(record["number"])
            if len(seen) >= 90:
                return seen
    return seen


async def main():
    producing = asyncio.create_task(produce())
    while not producing.done() and not await exists():
        await asyncio.sleep(0.05)
    seen = await consume()
    await producing
    assert sorted(seen) == list(range(90)), sorted(seen)
    print("fine")


async def exists():
    from aiobotocore.session import AioSession

    async with AioSession().create_client("kinesis", endpoint_url=sys.argv[1], region_name="us-east-1") as kinesis:
        return "async" in (await kinesis.list_streams())["StreamNames"]


asyncio.run(main())
