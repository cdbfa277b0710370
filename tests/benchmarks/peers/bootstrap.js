'use strict';
// A Lambda runtime for Node in small: asks for an event, hands it to the contender, posts what comes back.
// CONTENDER says which one: `postgres/sequelize`, `mariadb/serverless_mysql` ...

const http = require('node:http');
const { database } = require('./database');
const contenders = require('./contenders');

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const prefix = '/2018-06-01/runtime';

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const request = http.request({ host, port, method, path: prefix + path, agent, headers }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve({ headers: response.headers, body: Buffer.concat(chunks) }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function main() {
  const [server, name] = process.env.CONTENDER.split('/');
  const contender = contenders[server][name];
  if (!contender) throw new Error(`no contender ${process.env.CONTENDER}`);
  const handle = contender(database(process.env.DATABASE_URL));
  for (;;) {
    const event = await call('GET', '/invocation/next');
    const id = event.headers['lambda-runtime-aws-request-id'];
    try {
      const answer = await handle(JSON.parse(event.body));
      await call('POST', `/invocation/${id}/response`, JSON.stringify(answer));
    } catch (error) {
      const told = { errorType: error.code || error.name, errorMessage: String(error.message), stackTrace: [] };
      await call('POST', `/invocation/${id}/error`, JSON.stringify(told));
    }
  }
}

// What a driver throws beside the handler is an error of the process on the real platform as well.
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
