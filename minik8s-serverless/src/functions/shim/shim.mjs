// Serves one JavaScript function over HTTP: the handler (FUNCTION_HANDLER, "file.function") is called with the JSON body
// of each request, and what it returns, or its promise resolves to, is the answer, as JSON. An exception is answered with
// 500; its stack goes to the log and nowhere else. Code that cannot be loaded ends the process with status 65.

import http from 'node:http';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const handler = process.env.FUNCTION_HANDLER || 'main.main';
const dot = handler.lastIndexOf('.');
let call;
try {
  const file = path.join(process.cwd(), handler.slice(0, dot).replaceAll('.', '/') + '.mjs');
  call = (await import(pathToFileURL(file)))[handler.slice(dot + 1)];
  if (typeof call !== 'function') throw new TypeError(`${handler} is no function`);
} catch (error) {
  console.error(error);
  process.exit(65);
}

function answer(response, status, value) {
  const body = Buffer.from(JSON.stringify(value === undefined ? null : value));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
  response.end(body);
}

const server = http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const text = Buffer.concat(parts).toString();
  let params = {};
  try {
    if (text.trim()) params = JSON.parse(text);
  } catch (error) {
    return answer(response, 400, { error: `the body is no JSON: ${error.message}` });
  }
  try {
    answer(response, 200, await call(params));
  } catch (error) {
    console.error(error);
    answer(response, 500, { error: `the function failed: ${error?.name}` });
  }
});
server.keepAliveTimeout = 0;
server.listen(Number(process.env.PORT || 8080));
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
