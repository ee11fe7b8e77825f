// Drives a server with the AWS SDK for JavaScript by HTTP/2: create, put, read through a split and a merge, subscribe. Its argument is the server's address.

const assert = require("node:assert");
const http2 = require("node:http2");
const { NodeHttp2Handler } = require("@smithy/node-http-handler");
const {
  Kinesis, ResourceInUseException, ResourceNotFoundException, InvalidArgumentException,
  waitUntilStreamExists, waitUntilStreamNotExists,
} = require("@aws-sdk/client-kinesis");

/** How many connections were made, each of them in HTTP/2 from its first byte. */
let connections = 0;
const { connect } = http2;
http2.connect = (...to) => {
  connections += 1;
  return connect(...to);
};

const kinesis = new Kinesis({
  endpoint: process.argv[2],
  region: "us-east-1",
  credentials: { accessKeyId: "me", secretAccessKey: "secret" },
  maxAttempts: 1,
  requestHandler: new NodeHttp2Handler({ requestTimeout: 60_000 }),
});
const StreamName = "javascript";
const HALF = String(2n ** 127n);
const shardId = (number) => `shardId-${String(number).padStart(12, "0")}`;

async function put(first, count) {
  const Records = Array.from({ length: count }, (_, n) => ({
    Data: Buffer.from(`record ${first + n}`),
    PartitionKey: `key-${first + n}`,
  }));
  const answer = await kinesis.putRecords({ StreamName, Records });
  assert.strictEqual(answer.FailedRecordCount, 0);
}

/** Page by page. */
async function shards() {
  let answer = await kinesis.listShards({ StreamName, MaxResults: 1 });
  const found = answer.Shards;
  while (answer.NextToken) {
    answer = await kinesis.listShards({ NextToken: answer.NextToken, MaxResults: 1 });
    found.push(...answer.Shards);
  }
  return found;
}

/** Everything in a shard, and its children, once it is closed. */
async function drain(ShardId) {
  let { ShardIterator } = await kinesis.getShardIterator({ StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" });
  const records = [];
  for (;;) {
    const answer = await kinesis.getRecords({ ShardIterator, Limit: 7 });
    records.push(...answer.Records);
    if (!answer.NextShardIterator) return [records, answer.ChildShards];
    if (answer.MillisBehindLatest === 0) return [records, []];
    ShardIterator = answer.NextShardIterator;
  }
}

/** All records, parents before children. */
async function walk() {
  const { Shards } = await kinesis.listShards({ StreamName, ShardFilter: { Type: "AT_TRIM_HORIZON" } });
  const waiting = Shards.map((shard) => shard.ShardId);
  const done = new Set();
  const seen = [];
  while (waiting.length > 0) {
    const next = waiting.shift();
    if (done.has(next)) continue;
    const [records, children] = await drain(next);
    done.add(next);
    seen.push(...records);
    waiting.push(...children.filter((child) => child.ParentShards.every((parent) => done.has(parent))).map((child) => child.ShardId));
  }
  return seen;
}

/** Everything that a subscription says until the end of its shard. */
async function subscribe(ConsumerARN, number) {
  const answer = await kinesis.subscribeToShard({
    ConsumerARN, ShardId: shardId(number), StartingPosition: { Type: "TRIM_HORIZON" },
  });
  const events = [];
  for await (const event of answer.EventStream) events.push(event.SubscribeToShardEvent);
  return events;
}

async function main() {
  const before = new Date(Date.now() - 1000);
  await kinesis.createStream({ StreamName, ShardCount: 1 });
  await waitUntilStreamExists({ client: kinesis, maxWaitTime: 60 }, { StreamName });
  await put(0, 20);
  await kinesis.splitShard({ StreamName, ShardToSplit: shardId(0), NewStartingHashKey: HALF });
  await put(20, 20);
  await kinesis.mergeShards({ StreamName, ShardToMerge: shardId(1), AdjacentShardToMerge: shardId(2) });
  await put(40, 20);

  assert.deepStrictEqual((await shards()).map((shard) => shard.ShardId), [0, 1, 2, 3].map(shardId));
  const seen = await walk();
  const numbers = seen.map((record) => Number(record.PartitionKey.split("-")[1]));
  assert.deepStrictEqual([...numbers].sort((a, b) => a - b), Array.from({ length: 60 }, (_, n) => n));
  for (const record of seen) {
    assert.strictEqual(Buffer.from(record.Data).toString(), `record ${record.PartitionKey.split("-")[1]}`);
    assert.ok(record.ApproximateArrivalTimestamp > before && record.ApproximateArrivalTimestamp <= new Date());
  }
  const at = await kinesis.getShardIterator({ StreamName, ShardId: shardId(3), ShardIteratorType: "AT_TIMESTAMP", Timestamp: before });
  assert.strictEqual((await kinesis.getRecords({ ShardIterator: at.ShardIterator })).Records.length, 20);

  const { StreamDescriptionSummary } = await kinesis.describeStreamSummary({ StreamName });
  const { Consumer } = await kinesis.registerStreamConsumer({
    StreamARN: StreamDescriptionSummary.StreamARN, ConsumerName: "c",
  });
  const [first, second] = await Promise.all([subscribe(Consumer.ConsumerARN, 0), subscribe(Consumer.ConsumerARN, 1)]);
  assert.strictEqual(first.flatMap((event) => event.Records).length, 20);
  assert.deepStrictEqual(first.at(-1).ChildShards.map((child) => child.ShardId), [1, 2].map(shardId));
  assert.deepStrictEqual(second.at(-1).ChildShards.map((child) => child.ParentShards), [[1, 2].map(shardId)]);

  await assert.rejects(kinesis.putRecord({ StreamName: "none", Data: Buffer.alloc(0), PartitionKey: "a" }), ResourceNotFoundException);
  await assert.rejects(kinesis.createStream({ StreamName, ShardCount: 1 }), ResourceInUseException);
  await assert.rejects(kinesis.getRecords({ ShardIterator: "nonsense" }), InvalidArgumentException);
  await kinesis.deleteStream({ StreamName, EnforceConsumerDeletion: true });
  await waitUntilStreamNotExists({ client: kinesis, maxWaitTime: 60 }, { StreamName });
  assert.ok(connections > 0);
  kinesis.destroy();
  console.log("fine");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
