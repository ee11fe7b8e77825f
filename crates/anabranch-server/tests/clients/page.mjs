// Looks at the page in a headless Chromium, through its debugging pipe, while a stream is made, split, written and read.
// Arguments: the browser's binary, the protocol's address, the address of health, and a directory for pictures if some are wanted.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [binary, protocol, health, pictures] = process.argv.slice(2);

/** A browser with one tab. Messages are JSON, each with a zero byte behind it. */
class Browser {
  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), "anabranch-page-"));
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", `--user-data-dir=${this.profile}`, "about:blank"];
    this.child = spawn(binary, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.waiting = new Map();
    this.listeners = [];
    this.count = 0;
    this.gone = new Promise((resolve) => {
      for (const end of ["error", "close"]) this.child.once(end, resolve);
    });
    this.gone.then((why) => this.fail(new Error(`the browser has gone: ${why}`)));
    for (const pipe of this.child.stdio.slice(3)) pipe.on("error", (error) => this.fail(error));
    let rest = "";
    this.child.stdio[4].setEncoding("utf8").on("data", (text) => {
      const messages = (rest + text).split("\0");
      rest = messages.pop();
      for (const message of messages) this.receive(JSON.parse(message));
    });
  }

  receive({ id, result, error, method, params }) {
    if (id === undefined) return this.listeners.forEach((listener) => listener(method, params));
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(new Error(error.message)); else resolve(result);
  }

  /** Whoever waits for an answer, now or later, gets this instead. */
  fail(error) {
    this.failure ??= error;
    for (const { reject } of this.waiting.values()) reject(this.failure);
    this.waiting.clear();
  }

  async send(method, params = {}) {
    if (this.failure) throw this.failure;
    const id = ++this.count;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  async open() {
    const { targetInfos } = await this.send("Target.getTargets");
    const { targetId } = targetInfos.find((target) => target.type === "page");
    this.session = (await this.send("Target.attachToTarget", { targetId, flatten: true })).sessionId;
    for (const domain of ["Page", "Runtime", "Log"]) await this.send(`${domain}.enable`);
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    assert(!exceptionDetails, JSON.stringify(exceptionDetails));
    return result.value;
  }

  /** Waits until an expression is true; what the page shows is part of the message if it never is. */
  async until(expression) {
    for (let look = 0; look < 600; look += 1) {
      if (await this.evaluate(expression)) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.fail(`never: ${expression}\n${await this.evaluate("document.body.innerText")}`);
  }

  async picture(name, scheme, width = 1180) {
    if (!pictures) return;
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    await this.send("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false });
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: true });
    writeFileSync(join(pictures, `${name}-${scheme}.png`), Buffer.from(data, "base64"));
  }

  async close() {
    this.child.kill("SIGKILL");
    await this.gone;
    try {
      rmSync(this.profile, { recursive: true, force: true, maxRetries: 10 });
    } catch {
      // Its children may still write there on a busy machine: what is left is no fault of the page.
    }
  }
}

async function call(operation, body) {
  const answer = await fetch(protocol, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.1", "x-amz-target": `Kinesis_20131202.${operation}`, "x-amz-date": "20260101T000000Z",
      authorization: "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00",
    },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  return text === "" ? null : JSON.parse(text);
}

/** Puts records and reads them until it is told to stop. */
function load(name, shard) {
  let isOver = false;
  const done = (async () => {
    let iterator = (await call("GetShardIterator", { StreamName: name, ShardId: shard, ShardIteratorType: "LATEST" })).ShardIterator;
    for (let round = 0; !isOver; round += 1) {
      const Records = Array.from({ length: 20 + Math.round(15 * Math.sin(round / 9)) }, (_, index) => ({ PartitionKey: `${round}-${index}`, Data: Buffer.alloc(300).toString("base64") }));
      await call("PutRecords", { StreamName: name, Records });
      iterator = (await call("GetRecords", { ShardIterator: iterator })).NextShardIterator;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
  return async () => { isOver = true; await done; };
}

const caption = (name) => `[...document.querySelectorAll(".stream")].find((card) => card.querySelector("h3").textContent === ${JSON.stringify(name)})?.querySelector(".count-of-shards")?.textContent`;

async function followsStream(browser) {
  await browser.send("Page.navigate", { url: `${protocol}/` });
  await browser.until(`document.querySelector("#health")?.textContent === "healthy" && !document.querySelector("#empty").hidden`);
  await browser.picture("empty", "light");

  await call("CreateStream", { StreamName: "clicks", ShardCount: 1 });
  await browser.until(`${caption("clicks")} === "1 open shard" && document.querySelector("#empty").hidden`);

  await call("SplitShard", { StreamName: "clicks", ShardToSplit: "shardId-000000000000", NewStartingHashKey: String(2n ** 127n) });
  await browser.until(`${caption("clicks")} === "2 open shards, 1 closed"`);
  assert.deepEqual(await browser.evaluate(`[...document.querySelectorAll(".shard")].map((shard) => [shard.classList.contains("open"), shard.style.left, shard.style.width].join(" "))`),
    ["false 0% 100%", "true 0% 50%", "true 50% 50%"]);

  const stop = load("clicks", "shardId-000000000001");
  for (const side of ["in", "out"]) await browser.until(`parseFloat(document.querySelector(".rate.${side} b").textContent) > 0`);
  await stop();
  await browser.until(`document.querySelector(".rate.in b").textContent === "0/s"`);

  const { StreamARN } = (await call("DescribeStreamSummary", { StreamName: "clicks" })).StreamDescriptionSummary;
  await call("RegisterStreamConsumer", { StreamARN, ConsumerName: "billing" });
  await browser.until(`document.querySelector("td")?.textContent === "billing"`);
}

/** The server lets no such name in. If one came all the same, it would be text. */
async function takesNamesAsText(browser) {
  const harm = `<img src=x onerror="window.harmed=1"><script>window.harmed=1</` + `script>"'&`;
  await intercept(browser, async ({ requestId }) => {
    const status = await (await fetch(`${health}/status`)).json();
    const stream = { ...status.streams[0], name: harm, arn: harm, region: harm, account: harm, failure: harm, consumers: [{ name: harm, subscriptions: 1, behindMs: 5 }], shards: [{ ...status.streams[0].shards[0], id: harm, parents: [harm] }] };
    const body = JSON.stringify({ ...status, version: harm, health: { status: "failing", reasons: [harm] }, streams: [stream] });
    await browser.send("Fetch.fulfillRequest", { requestId, responseCode: 200, body: Buffer.from(body).toString("base64") });
  }, async () => {
    await browser.until(`document.querySelector("h3").textContent === ${JSON.stringify(harm)} && !document.querySelector("#notice").hidden`);
    assert.deepEqual(await browser.evaluate(`[document.querySelectorAll("img").length, document.querySelectorAll("script").length, window.harmed ?? null]`), [0, 1, null]);
  });
  // Not even what came in as markup would run.
  await browser.evaluate(`document.body.insertAdjacentHTML("beforeend", '<p id=inlet onclick="window.harmed=1"></p>'); document.querySelector("#inlet").click()`);
  assert.equal(await browser.evaluate("window.harmed ?? null"), null);
  await browser.evaluate(`document.querySelector("#inlet").remove()`);
}

async function tellsThatServerIsGone(browser) {
  await intercept(browser, ({ requestId }) => browser.send("Fetch.failRequest", { requestId, errorReason: "ConnectionRefused" }), async () => {
    await browser.until(`document.querySelector("#health").textContent === "not reachable" && document.querySelector("#notice").textContent.startsWith("The server does not answer.")`);
    await browser.picture("gone", "light");
    await browser.picture("gone", "dark");
  });
  await browser.until(`document.querySelector("#health").textContent === "healthy" && document.querySelector("#notice").hidden`);
}

async function intercept(browser, answer, work) {
  const listener = (method, params) => { if (method === "Fetch.requestPaused") answer(params); };
  browser.listeners.push(listener);
  await browser.send("Fetch.enable", { patterns: [{ urlPattern: "*/status" }] });
  await work();
  await browser.send("Fetch.disable");
  browser.listeners.splice(browser.listeners.indexOf(listener), 1);
}

/** A server with more to show, at the address of health. */
async function takesPictures(browser) {
  await call("CreateStream", { StreamName: "orders", ShardCount: 4 });
  const split = (shard, at) => call("SplitShard", { StreamName: "orders", ShardToSplit: `shardId-00000000000${shard}`, NewStartingHashKey: String(at) });
  await split(1, 2n ** 126n + 2n ** 125n);
  await split(4, 2n ** 126n + 2n ** 124n);
  await call("MergeShards", { StreamName: "orders", ShardToMerge: "shardId-000000000002", AdjacentShardToMerge: "shardId-000000000003" });
  await call("CreateStream", { StreamName: "audit-trail", StreamModeDetails: { StreamMode: "ON_DEMAND" } });
  const stops = [load("clicks", "shardId-000000000001"), load("orders", "shardId-000000000000")];
  await browser.send("Page.navigate", { url: `${health}/` });
  await browser.until(`document.querySelectorAll(".stream").length === 3 && document.querySelector("#health").textContent === "healthy"`);
  await new Promise((resolve) => setTimeout(resolve, 45_000));
  for (const scheme of ["light", "dark"]) await browser.picture("page", scheme);
  await browser.picture("narrow", "light", 420);
  for (const stop of stops) await stop();
}

const complaints = [];

/** What the browser complained of since it was last asked is this, and nothing else. */
function complained(expected) {
  const others = complaints.splice(0).filter((complaint) => !expected?.test(complaint));
  assert.deepEqual(others, []);
}

const browser = new Browser();
try {
  browser.listeners.push((method, params) => {
    if (method === "Runtime.exceptionThrown") complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Log.entryAdded" && params.entry.level === "error") complaints.push(params.entry.text);
  });
  await browser.open();
  await followsStream(browser);
  complained();
  if (pictures) await takesPictures(browser);
  await browser.send("Page.navigate", { url: `${health}/` });
  await browser.until(`document.querySelector("#health")?.textContent === "healthy" && document.querySelector("td")?.textContent === "billing"`);
  complained();
  await takesNamesAsText(browser);
  complained(/Content Security Policy/); // of the markup that came in
  await tellsThatServerIsGone(browser);
  complained(/net::ERR_CONNECTION_REFUSED/);
  console.log("fine");
} finally {
  await browser.close();
}
