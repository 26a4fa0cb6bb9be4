// graphile-worker.

import { PAD, load, serve } from "./adapter.mjs";

const { Logger, makeWorkerUtils, run, WorkerPreset } = await load("graphile-worker");
const logger = new Logger(() => () => {}); // nobody's logs are measured

// https://worker.graphile.org/docs/config: one job at a time, each asked for and ended by itself
const defaults = { concurrency: 1, worker: {} };
// https://worker.graphile.org/docs/performance, "Quick stats": the settings of its own measurement
const best = {
  concurrency: 24,
  worker: {
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};

const preset = (url, settings) => ({
  extends: [WorkerPreset],
  worker: {
    connectionString: url,
    logger,
    concurrentJobs: settings.concurrency,
    maxPoolSize: Math.max(10, settings.concurrency + 1),
    ...settings.worker,
  },
});
const payload = (i) => ({ i, pad: PAD });

await serve({
  packages: ["graphile-worker", "pg"],
  defaults,
  best,
  left: "SELECT count(*) FROM graphile_worker._private_jobs",

  async prepare(url, settings) {
    const utils = await makeWorkerUtils({ preset: preset(url, settings) });
    await utils.migrate();
    await utils.release();
  },

  async producer(url, settings) {
    const utils = await makeWorkerUtils({ preset: preset(url, settings) });
    return {
      one: (i) => utils.addJob("run", payload(i)),
      many: (numbers) => utils.addJobs(numbers.map((i) => ({ identifier: "run", payload: payload(i) }))),
      close: () => utils.release(),
    };
  },

  async work(url, settings, handler) {
    const runner = await run({
      preset: preset(url, settings),
      noHandleSignals: true,
      taskList: { run: (job) => handler(job.i) },
    });
    return { stop: () => runner.stop() };
  },
});
