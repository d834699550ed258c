// A minimal server on the official TypeScript SDK, for comparison: the same tools, a submission
// that spawns a detached child and writes a record, a status that reads it.
//
//   node peer.mjs STATE_DIR CHILD [ARGUMENT...]

import { spawn } from "node:child_process";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import * as z from "zod/v4";

const [state, program, ...programArguments] = process.argv.slice(2);

const which = z.strictObject({
  run: z.string().optional().describe("The run's name"),
  service: z.string().optional().describe("Only runs of this service"),
  task_id: z.union([z.number(), z.string()]).optional().describe("Only runs for this task"),
});

const submission = z.strictObject({
  task_id: z.union([z.number(), z.string()]).describe("The task to implement"),
  service: z.string().describe("The service the task belongs to"),
  agent: z.string().default("claude-agent-1"),
  model: z.string().default("sonnet"),
  branch: z.string().default("main"),
  retry: z.boolean().default(false),
  guidance: z.string().optional(),
  repository_url: z.string().optional(),
  platform_repository_url: z.string().optional(),
  working_directory: z.string().optional(),
});

const text = (value) => ({ content: [{ type: "text", text: value }] });
const record = (run) => join(state, run, "record.json");

async function submit({ task_id, service, agent, ...rest }) {
  const run = `${service}-${agent}-task${task_id}-attempt1`;
  await mkdir(join(state, run), { recursive: true });
  const child = spawn(program, programArguments, { detached: true, stdio: "ignore" });
  child.unref();
  const entry = { run, task_id, service, agent, ...rest, process: child.pid, begun: new Date().toISOString() };
  await writeFile(record(run), JSON.stringify(entry));
  return text(`Submitted ${run} (task ${task_id}, service ${service}, model ${rest.model}).`);
}

async function newest() {
  const runs = await readdir(state);
  return runs.sort().at(-1);
}

async function status({ run }) {
  const entry = JSON.parse(await readFile(record(run ?? (await newest())), "utf8"));
  let phase = "Running";
  try {
    process.kill(entry.process, 0);
  } catch {
    phase = "Ended";
  }
  return text(`${entry.run}: ${phase} since ${entry.begun}`);
}

async function list() {
  const runs = await readdir(state);
  return text(runs.sort().join("\n"));
}

serveStdio(() => {
  const server = new McpServer({ name: "peer", version: "1.0.0" });
  const tools = [
    ["submit_implementation_task", "Submit an implementation task", submission, submit],
    ["get_task_status", "The status of a task", which, status],
    ["list_tasks", "All tasks", which, list],
    ["get_task_logs", "The logs of a task", which, status],
    ["wait_for_task", "Wait for a task", which, status],
    ["stop_task", "Stop a task", which, status],
  ];
  for (const [name, description, inputSchema, perform] of tools) {
    server.registerTool(name, { title: description, description, inputSchema }, perform);
  }
  return server;
});
