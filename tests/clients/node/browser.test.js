// `openai` in a browser, on a page whose origin is in `ALLOWED_ORIGINS`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { build } from "esbuild";

import { BASE_URL, tokens } from "./common.js";

const ORIGIN = "http://127.0.0.1:9310";

const page = `
  import { cases } from "./openai-cases.js";
  const { baseURL, tokens } = await (await fetch("/settings")).json();
  const all = [];
  cases((name, run) => all.push([name, run]), baseURL, tokens, { dangerouslyAllowBrowser: true });
  const results = [];
  for (const [name, run] of all) {
    const failed = await run().then(() => null, (error) => String(error?.stack ?? error));
    results.push({ name, failed });
  }
  await fetch("/results", { method: "POST", body: JSON.stringify(results) });
`;

async function bundle() {
  const { outputFiles } = await build({
    stdin: { contents: page, resolveDir: import.meta.dirname },
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    define: { "process.env.GRETA_URL": "undefined" },
  });
  return outputFiles[0].text;
}

async function resultsFromBrowser() {
  const script = await bundle();
  const settings = JSON.stringify({ baseURL: BASE_URL, tokens: await tokens() });
  let report;
  const results = new Promise((resolve) => (report = resolve));
  const server = createServer(async (request, response) => {
    if (request.url === "/results") {
      let body = "";
      for await (const part of request) body += part;
      report(JSON.parse(body));
      response.end();
    } else if (request.url === "/page.js") {
      response.setHeader("content-type", "text/javascript").end(script);
    } else if (request.url === "/settings") {
      response.setHeader("content-type", "application/json").end(settings);
    } else {
      response.setHeader("content-type", "text/html");
      response.end('<!doctype html><script type="module" src="page.js"></script>');
    }
  });
  server.listen(new URL(ORIGIN).port, "127.0.0.1");
  await once(server, "listening");
  const profile = await mkdtemp(join(tmpdir(), "clients-"));
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  const open = [`--user-data-dir=${profile}`, ORIGIN];
  const browser = spawn("chromium", [...flags, ...open], { stdio: "ignore" });
  const tooLong = AbortSignal.timeout(60_000);
  try {
    return await Promise.race([
      results,
      once(browser, "exit").then(() => Promise.reject(new Error("the browser exited"))),
      once(tooLong, "abort").then(() => Promise.reject(new Error("the page reported nothing"))),
    ]);
  } finally {
    browser.kill("SIGKILL");
    server.closeAllConnections();
    server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

for (const { name, failed } of await resultsFromBrowser()) {
  test(`in a browser: ${name}`, () => {
    if (failed) throw new Error(failed);
  });
}
