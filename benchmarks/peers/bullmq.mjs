// BullMQ on its PostgreSQL backend.

import { PAD, load, serve } from "./adapter.mjs";

const { Queue, Worker, createPostgresBackend, runMigrations } = await load("bullmq");
const pg = (await load("pg")).default;
const QUEUE = "bench";

// https://docs.bullmq.io/guide/workers/concurrency: one job at a time; ended jobs are kept
const defaults = { concurrency: 1, remove: false };
// https://docs.bullmq.io/guide/postgresql, "Indicative numbers" and "Tuning tips": a concurrency of 8 to 32, a
// connection for each, ended jobs removed; turning durability off is not taken
const best = { concurrency: 16, remove: true };

const payload = (i) => ({ i, pad: PAD });

await serve({
  packages: ["bullmq", "pg"],
  defaults,
  best,
  left: "SELECT count(*) FROM bullmq.job WHERE state <> 'completed'",

  async prepare(url) {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await runMigrations(client);
    await client.end();
  },

  async producer(url, settings) {
    // in an ES module the backend cannot load pg itself, so it is given a pool
    const pool = pooled(url, settings);
    const queue = new Queue(QUEUE, { connection: pool }, createPostgresBackend);
    await queue.waitUntilReady();
    return {
      one: (i) => queue.add("run", payload(i)),
      many: (numbers) => queue.addBulk(numbers.map((i) => ({ name: "run", data: payload(i) }))),
      close: async () => {
        await queue.close();
        await pool.end();
      },
    };
  },

  async work(url, settings, handler) {
    const pool = pooled(url, settings);
    const worker = new Worker(
      QUEUE,
      (job) => handler(job.data.i),
      {
        connection: pool,
        concurrency: settings.concurrency,
        ...(settings.remove ? { removeOnComplete: { count: 0 } } : {}),
      },
      createPostgresBackend,
    );
    worker.on("error", (error) => process.stderr.write(`${error}\n`));
    await worker.waitUntilReady();
    return {
      stop: async () => {
        await worker.close();
        await pool.end();
      },
    };
  },
});

function pooled(url, settings) {
  const max = Math.max(10, settings.concurrency + 1);
  return new pg.Pool({ connectionString: url, max, options: "-c search_path=bullmq" });
}
