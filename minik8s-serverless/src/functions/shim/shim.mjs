// Serves one JavaScript function over HTTP: the handler (FUNCTION_HANDLER, "file.function") is called with the JSON body
// of each request, and what it returns, or its promise resolves to, is the answer, as JSON. An exception is answered with
// 500; its stack goes to the log and nowhere else, behind the id of the request. Code that cannot be loaded ends the
// process with status 65.
//
// A handler of two arguments is given what else is known of the call as the second: requestId ("-" where whoever called
// gave none), idempotencyKey, method, path (below the function's own address, with the query), headers (by names in lower
// case), and deadline (when nobody waits any more, in milliseconds since 1970); undefined where there is no such thing.
//
// What a handler yields (it is a generator, or returns one, a stream, or anything else that is iterated asynchronously) goes out
// at once, piece by piece, each a string or bytes: the answer is what they are together. An exception before the first piece
// is answered as ever; one in the middle breaks the answer off, so that nobody takes it for whole.
//
// A call that takes longer than FUNCTION_TIMEOUT seconds has lost its caller, and cannot be ended: the process takes no more
// calls, lets the others end, and is started again. Where the call does not let anything else run (a loop), a thread that
// watches breaks it off a little later.

import http from 'node:http';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { Worker } from 'node:worker_threads';

const timeout = 1000 * Number(process.env.FUNCTION_TIMEOUT || 0);
const MERCY = 5000;

const handler = process.env.FUNCTION_HANDLER || 'main.main';
const dot = handler.lastIndexOf('.');
let call;
let file = '';
try {
  file = path.join(process.cwd(), handler.slice(0, dot).replaceAll('.', '/') + '.mjs');
  call = (await import(pathToFileURL(file)))[handler.slice(dot + 1)];
  if (typeof call !== 'function') throw new TypeError(`${handler} is no function`);
} catch (error) {
  console.error(`${file} cannot be loaded`);
  console.error(error);
  process.exit(65);
}

function answer(response, status, value) {
  const body = Buffer.from(JSON.stringify(value === undefined ? null : value));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
  response.end(body);
}

// When the earliest of the calls that run must have ended, for the thread that watches; 0 while there is none.
const due = new BigInt64Array(new SharedArrayBuffer(8));
const running = new Map();
if (timeout > 0) {
  const watch = `
    const { workerData: { due, mercy } } = require('node:worker_threads');
    const { writeSync } = require('node:fs');
    const still = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    const isLate = (by) => {
      const until = Atomics.load(due, 0);
      return until !== 0n && BigInt(Date.now()) > until + BigInt(by);
    };
    // The first process of a container is spared by every signal from within, so what runs is broken off first: after
    // that the main thread ends the process by itself.
    const breakOff = () => {
      const session = new (require('node:inspector').Session)();
      session.connectToMainThread();
      session.post('Runtime.terminateExecution');
      still(50);
      session.disconnect();
    };
    for (;;) {
      Atomics.wait(due, 0, 0n);
      if (isLate(mercy)) {
        writeSync(2, 'a call lets nothing else run: this instance is killed and started again\\n');
        try { breakOff(); } catch (error) { writeSync(2, 'it cannot be broken off: ' + error.message + '\\n'); }
        still(mercy);
        if (isLate(mercy)) process.kill(process.pid, 'SIGKILL');
      }
      still(250);
    }`;
  new Worker(watch, { eval: true, workerData: { due, mercy: MERCY } }).unref();
}

function tell() {
  const earliest = Math.min(...running.values());
  Atomics.store(due, 0, Number.isFinite(earliest) ? BigInt(earliest) : 0n);
  Atomics.notify(due, 0);
}

/** Ends the process once no call runs that may still end. */
function end(status) {
  server.close();
  server.closeIdleConnections();
  const look = () => {
    const now = Date.now();
    if ([...running.values()].every((until) => until < now)) process.exit(status);
    setTimeout(look, 10);
  };
  look();
}

function contextOf(request) {
  const { method, url: path, headers } = request;
  const id = headers['x-request-id'] ?? '';
  const requestId = /^[!-~]{1,128}$/.test(id) ? id : '-';
  const deadline = timeout > 0 ? Date.now() + timeout : undefined;
  return { requestId, idempotencyKey: headers['idempotency-key'], method, path, headers, deadline };
}

/** What is yielded piece by piece: streams and generators. Arrays and strings are whole. */
function isYielded(value) {
  if (value === null || typeof value !== 'object') return false;
  return typeof value[Symbol.asyncIterator] === 'function'
    || (typeof value[Symbol.iterator] === 'function' && typeof value.next === 'function');
}

/** Sends what is yielded, as it is. `reader.slow` says that the caller takes nothing now. */
async function sendAll(response, yielded, reader) {
  let wake = () => {};
  response.on('drain', () => wake());
  response.on('close', () => wake());
  for await (const piece of yielded) {
    if (typeof piece !== 'string' && !(piece instanceof Uint8Array)) {
      throw new TypeError(`a handler yields strings or bytes, not ${typeof piece}`);
    }
    // The caller has gone: leaving the loop ends who yields.
    if (response.destroyed) return;
    if (piece.length === 0) continue;
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
    if (response.write(piece)) continue;
    reader.slow = true;
    await new Promise((resolve) => { wake = resolve; });
    reader.slow = false;
    if (response.destroyed) return;
  }
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
  response.end();
}

async function run(params, context, response, reader) {
  const given = call.length >= 2 ? [params, context] : [params];
  const value = await call(...given);
  if (isYielded(value)) await sendAll(response, value, reader);
  else answer(response, 200, value);
}

async function timed(params, context, response) {
  const reader = { slow: false };
  if (timeout <= 0) return await run(params, context, response, reader);
  const id = Symbol();
  running.set(id, Date.now() + timeout);
  tell();
  const late = setTimeout(() => {
    // A caller that takes nothing must not end the instance.
    if (reader.slow) return response.destroy();
    console.error('a call takes longer than it may: this instance ends and is started again');
    end(70);
  }, timeout + 1);
  try {
    return await run(params, context, response, reader);
  } finally {
    clearTimeout(late);
    running.delete(id);
    tell();
  }
}

const server = http.createServer(async (request, response) => {
  const context = contextOf(request);
  const parts = [];
  try {
    for await (const part of request) parts.push(part);
  } catch {
    // The caller left in the middle of its body: nobody is there to be told, and nobody else's matter.
    return response.destroy();
  }
  const text = Buffer.concat(parts).toString();
  let params = {};
  try {
    if (text.trim()) params = JSON.parse(text);
  } catch (error) {
    return answer(response, 400, { error: `the body is no JSON: ${error.message}` });
  }
  try {
    await timed(params, context, response);
  } catch (error) {
    console.error(`request ${context.requestId} failed\n${inspect(error)}`);
    // What was yielded before still goes out; that it is all is not said.
    if (response.headersSent) return response.socket?.destroySoon();
    answer(response, 500, { error: `the function failed: ${error?.name}` });
  }
});
server.keepAliveTimeout = 0;
server.listen(Number(process.env.PORT || 8080));
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
