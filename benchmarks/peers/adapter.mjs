// What adapter.py is for Python: the process that runs an adapter of a queue for Node.
//
// An adapter calls `serve` with { packages, defaults, best, left, prepare, producer, work, flows }, which mean what
// adapter.py says. It is run in the folder that its packages are installed in, so `load` finds them there.

import { createRequire } from "node:module";
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

export const PAD = "x".repeat(90);
const SAID_EVERY = 20; // milliseconds
const SLEEP = 10; // milliseconds
const POOL = 10;
const BULK = 1000;
const TICK = 0.01; // seconds

const here = createRequire(`${process.cwd()}/package.json`);

/** Import a package of the folder that this process runs in. */
export const load = async (name) => await import(pathToFileURL(here.resolve(name)));

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export const seconds = () => Number(process.hrtime.bigint()) / 1e9;

/** Which handlers began, and when, in nanoseconds of the machine's monotonic clock. */
class Starts {
  count = 0;
  numbers = [];
  moments = [];

  constructor(every = 1) {
    this.every = every;
  }

  one(number) {
    this.count += 1;
    if (number % this.every === 0) {
      this.moments.push(process.hrtime.bigint());
      this.numbers.push(number);
    }
  }

  write(path) {
    const both = BigInt64Array.from([...this.numbers.map(BigInt), ...this.moments]);
    writeFileSync(path, new Uint8Array(both.buffer));
  }
}

async function handlers(kind, url, starts) {
  if (kind === "nothing") return { call: async (number) => starts.one(number), close: async () => {} };
  if (kind === "sleep") {
    const call = async (number) => {
      starts.one(number);
      await pause(SLEEP);
    };
    return { call, close: async () => {} };
  }
  const pg = (await load("pg")).default;
  const pool = new pg.Pool({ connectionString: url, max: POOL });
  const call = async (number) => {
    starts.one(number);
    await pool.query({ name: "one", text: "SELECT 1" });
  };
  return { call, close: () => pool.end() };
}

const say = (facts) => process.stdout.write(`${JSON.stringify(facts)}\n`);

function described(adapter) {
  const version = (name) => here(`${process.cwd()}/node_modules/${name}/package.json`).version;
  return {
    database: "postgres",
    runtime: `Node ${process.versions.node}`,
    versions: Object.fromEntries(adapter.packages.map((name) => [name, version(name)])),
    settings: { defaults: adapter.defaults, best: adapter.best },
    left: adapter.left,
  };
}

export const range = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

async function enqueue(adapter, { url, settings, how, jobs = 0, callers = 1, lasting = 0 }) {
  const producer = await adapter.producer(url, settings);
  const began = seconds();
  let sent = 0;
  if (how === "bulk") {
    for (; sent < jobs; sent = Math.min(sent + BULK, jobs)) await producer.many(range(sent, Math.min(sent + BULK, jobs)));
  } else {
    const call = async () => {
      while (seconds() < began + lasting) await producer.one(sent++);
    };
    await Promise.all(Array.from({ length: callers }, call));
  }
  const took = seconds() - began;
  await producer.close();
  return { jobs: sent, seconds: took };
}

async function produce(adapter, { url, settings, jobs, rate, record, every }) {
  const size = rate * TICK <= 1 ? 1 : Math.round(rate * TICK);
  const between = size / rate;
  const sent = new Starts(every);
  const producer = await adapter.producer(url, settings);
  const began = seconds();
  let due = began;
  for (let start = 0; start < jobs; start += size) {
    due += between * (size === 1 ? 0.5 + Math.random() : 1);
    const early = due - seconds();
    if (early > 0) await pause(1000 * early);
    const numbers = range(start, Math.min(start + size, jobs));
    for (const number of numbers) sent.one(number);
    await (size === 1 ? producer.one(start) : producer.many(numbers));
  }
  const took = seconds() - began;
  await producer.close();
  sent.write(record);
  return { seconds: took, rate: jobs / took };
}

async function work(adapter, { url, settings, handler, record, every }) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const starts = new Starts(every);
  const body = await handlers(handler, url, starts);
  say({ ready: true });
  await lines.next();
  const worker = await adapter.work(url, settings, body.call);
  let said = -1;
  const saying = setInterval(() => {
    if (starts.count !== said) say({ started: (said = starts.count) });
  }, SAID_EVERY);
  await lines.next();
  clearInterval(saying);
  await worker.stop();
  await body.close();
  starts.write(record);
  return { started: starts.count, ended: true };
}

/** Run the command that this process was started with. */
export async function serve(adapter) {
  const [command, json] = process.argv.slice(2);
  const given = JSON.parse(json);
  const commands = {
    describe: () => described(adapter),
    prepare: () => adapter.prepare(given.url, given.settings),
    enqueue: () => enqueue(adapter, given),
    produce: () => produce(adapter, given),
    work: () => work(adapter, given),
    flows: () => adapter.flows(given.url, given.settings, given.shape, given.jobs, given.steps),
  };
  const said = await commands[command]();
  process.stdout.write(`${JSON.stringify(said ?? {})}\n`, () => process.exit(0));
}
