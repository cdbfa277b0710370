'use strict';
// The URL that the contenders in Rust take as it is, in the words of Node's drivers.

const fs = require('node:fs');

exports.database = function database(text) {
  const url = new URL(text);
  const ca = url.searchParams.get('sslrootcert') || url.searchParams.get('ssl-ca');
  return {
    host: url.hostname,
    port: Number(url.port),
    user: url.username,
    password: url.password,
    database: url.pathname.slice(1),
    // Read once, as a function does at init. With TLS the certificate is verified, name included.
    tls: ca ? { ca: fs.readFileSync(ca, 'utf8') } : undefined,
  };
};
