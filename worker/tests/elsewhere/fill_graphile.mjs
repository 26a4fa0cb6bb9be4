// Fills a database as a program with graphile-worker leaves it: node fill_graphile.mjs URL
import { makeWorkerUtils, runOnce } from "graphile-worker";
import pg from "pg";

const connectionString = process.argv[2];
const utils = await makeWorkerUtils({ connectionString });
await utils.migrate();

await utils.addJob("send_email", { to: "ada@example.com", n: 1.5 });
for (const order of [1, 2, 3]) await utils.addJob("ship", { order }, { queueName: "orders" });
await utils.addJob(
  "remind",
  { cart: 7 },
  { jobKey: "cart:7", runAt: new Date("2040-01-01T00:00:00Z"), priority: 5, maxAttempts: 3, flags: ["gpu"] },
);
await utils.addJob("notify", [{ user: 1 }, { user: 2 }]);
await utils.addJob("odd", 7);
await utils.addJob("two words", {});
const lost = await utils.addJob("send_email", { to: "nobody" }, { jobKey: "lost" });
await utils.permanentlyFailJobs([lost.id], "nobody knows them");

await utils.addJob("flaky", { try: 1 }, { runAt: new Date("2020-01-01T00:00:00Z") });
await runOnce({
  connectionString,
  noHandleSignals: true,
  taskList: {
    flaky: async () => {
      throw new Error("not yet");
    },
  },
});

// What a worker that was killed leaves behind.
await utils.addJob("ship", { order: 9 }, { queueName: "busy" });
await utils.addJob("ship", { order: 10 }, { queueName: "busy" });
const client = new pg.Client({ connectionString });
await client.connect();
await client.query(`
  UPDATE graphile_worker._private_jobs SET locked_at = now(), locked_by = 'worker-1', attempts = 1
  WHERE id = (SELECT min(job.id) FROM graphile_worker._private_jobs AS job
              JOIN graphile_worker._private_job_queues AS queue ON queue.id = job.job_queue_id AND queue_name = 'busy')`);
await client.query(`
  UPDATE graphile_worker._private_job_queues SET locked_at = now(), locked_by = 'worker-1' WHERE queue_name = 'busy'`);
await client.end();
await utils.release();
