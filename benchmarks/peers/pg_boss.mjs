// pg-boss. A fetch gives its handler many jobs, which it runs at once; they are completed together.

import { PAD, load, range, seconds, serve } from "./adapter.mjs";

const { PgBoss } = await load("pg-boss");
const QUEUE = "bench";

// https://timgit.github.io/pg-boss/#/./api/workers: one job each two seconds, nobody is told of a new one
const defaults = { concurrency: 1, notify: false, work: {}, flows: {} };
// the same page: many jobs a fetch (how many it does not say; 1,000 was the fastest of 50 to 2,000 that we tried), no
// pause while fetches are full; https://timgit.github.io/pg-boss/#/./api/queues: workers are told of new jobs. What waits for
// others is looked after each five seconds, and at most each second.
const best = { concurrency: 1000, notify: true, work: { burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }, flows: { flowIntervalSeconds: 1 } };

async function started(url, settings, supervised = false) {
  // only workers do the chores
  const boss = new PgBoss({ connectionString: url, useListenNotify: settings.notify && supervised, supervise: supervised, ...settings.flows });
  boss.on("error", (error) => process.stderr.write(`${error}\n`));
  await boss.start();
  return boss;
}
const payload = (i) => ({ i, pad: PAD });

await serve({
  packages: ["pg-boss", "pg"],
  defaults,
  best,
  left: "SELECT count(*) FROM pgboss.job WHERE name = 'bench' AND state <> 'completed'",

  async prepare(url, settings) {
    const boss = await started(url, settings);
    await boss.createQueue(QUEUE, { notify: settings.notify });
    await boss.stop({ graceful: false });
  },

  async producer(url, settings) {
    const boss = await started(url, settings);
    return {
      one: (i) => boss.send(QUEUE, payload(i)),
      many: (numbers) => boss.insert(QUEUE, numbers.map((i) => ({ data: payload(i) }))),
      close: () => boss.stop({ graceful: false }),
    };
  },

  // one call a flow; a job says for which others it waits, and gets nothing of them
  async flows(url, settings, shape, jobs, steps) {
    const boss = await started(url, settings);
    const job = (i, dependsOn) => ({ ref: `${i}`, name: QUEUE, data: payload(i), dependsOn });
    const began = seconds();
    if (shape === "chains") {
      for (let first = 0; first < jobs; first += steps)
        await boss.flow(range(first, first + steps).map((i) => job(i, i === first ? undefined : [`${i - 1}`])));
    } else {
      const before = range(0, jobs - 1);
      await boss.flow([...before.map((i) => job(i)), job(jobs - 1, before.map((i) => `${i}`))]);
    }
    const took = seconds() - began;
    await boss.stop({ graceful: false });
    return { seconds: took };
  },

  async work(url, settings, handler) {
    const boss = await started(url, settings, true);
    await boss.work(QUEUE, { ...settings.work, batchSize: settings.concurrency }, async (jobs) => {
      await Promise.all(jobs.map((job) => handler(job.data.i)));
    });
    return { stop: () => boss.stop({ timeout: 10_000 }) };
  },
});
