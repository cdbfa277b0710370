'use strict';
// Each contender is used as its own documentation says. All do the same for an event: so many queries, one after the
// other, each for one row by its key. A contender takes the database, and returns the handler.

const FIND = { postgres: 'SELECT name FROM items WHERE id = $1', mariadb: 'SELECT name FROM items WHERE id = ?' };
const HOLD = { postgres: 'SELECT pg_sleep($1)', mariadb: 'SELECT sleep(?)' };

async function work(event, hold, find) {
  if (event.hold_ms > 0) await hold(event.hold_ms / 1000);
  let read = 0;
  for (let id = 1; id <= event.queries; id += 1) read += (await find(id)).length;
  return { read };
}

// --- Sequelize: its guide for AWS Lambda, word for word where it says something ---

function sequelize(dialect) {
  const { Sequelize, DataTypes } = require('sequelize');
  const timeout = Number(process.env.BENCHMARK_TIMEOUT_MS);
  return (database) => {
    let loaded = null;
    let Item = null;

    async function loadSequelize() {
      const { host, port, user, password, tls } = database;
      const instance = new Sequelize(database.database, user, password, {
        host,
        port,
        dialect,
        logging: false,
        dialectOptions: tls ? { ssl: dialect === 'mysql' ? { ...tls, verifyIdentity: true } : tls } : {},
        pool: { max: 2, min: 0, idle: 0, acquire: 3000, evict: timeout },
      });
      Item = instance.define('item', { id: { type: DataTypes.INTEGER, primaryKey: true }, name: DataTypes.TEXT },
        { tableName: 'items', timestamps: false });
      await instance.authenticate();
      return instance;
    }

    const hold = (seconds) => loaded.query(dialect === 'postgres' ? 'SELECT pg_sleep(:seconds)' : 'SELECT sleep(:seconds)',
      { replacements: { seconds } });
    const find = async (id) => (await Item.findByPk(id, { raw: true })).name;

    return async (event) => {
      if (!loaded) {
        loaded = await loadSequelize();
      } else {
        loaded.connectionManager.initPools();
        if (Object.prototype.hasOwnProperty.call(loaded.connectionManager, 'getConnection')) {
          delete loaded.connectionManager.getConnection;
        }
      }
      try {
        return await work(event, hold, find);
      } finally {
        await loaded.connectionManager.close();
      }
    };
  };
}

// --- PostgreSQL ---

function options({ tls, ...rest }) {
  return { ...rest, ssl: tls };
}

function nodePostgres(database) {
  const { Pool } = require('pg');
  const pool = new Pool({ ...options(database), max: 2 });
  // Without a listener, an idle connection that breaks ends the process.
  pool.on('error', () => {});
  const hold = (seconds) => pool.query(HOLD.postgres, [seconds]);
  const find = async (id) => (await pool.query(FIND.postgres, [id])).rows[0].name;
  return (event) => work(event, hold, find);
}

function serverlessPostgres(database) {
  const ServerlessClient = require('serverless-postgres');
  const client = new ServerlessClient({ ...options(database), delayMs: 3000 });
  const hold = (seconds) => client.query(HOLD.postgres, [seconds]);
  const find = async (id) => (await client.query(FIND.postgres, [id])).rows[0].name;
  return async (event) => {
    await client.connect();
    const done = await work(event, hold, find);
    await client.clean();
    return done;
  };
}

// --- MariaDB ---

function mysqlOptions({ tls, ...rest }) {
  return tls ? { ...rest, ssl: { ...tls, verifyIdentity: true } } : rest;
}

function mysql2(database) {
  const pool = require('mysql2/promise').createPool({ ...mysqlOptions(database), connectionLimit: 2 });
  const hold = (seconds) => pool.execute(HOLD.mariadb, [seconds]);
  const find = async (id) => (await pool.execute(FIND.mariadb, [id]))[0][0].name;
  return (event) => work(event, hold, find);
}

function serverlessMysql(database) {
  const mysql = require('serverless-mysql')({ config: mysqlOptions(database) });
  const hold = (seconds) => mysql.query(HOLD.mariadb, [seconds]);
  const find = async (id) => (await mysql.query(FIND.mariadb, [id]))[0].name;
  return async (event) => {
    const done = await work(event, hold, find);
    await mysql.end();
    return done;
  };
}

// Each is loaded only where it takes part: a function carries what it needs, and no more.
const lazy = (make) => (database) => make()(database);

exports.postgres = {
  sequelize: lazy(() => sequelize('postgres')),
  node_postgres: nodePostgres,
  serverless_postgres: serverlessPostgres,
};
exports.mariadb = {
  sequelize: lazy(() => sequelize('mysql')),
  mysql2,
  serverless_mysql: serverlessMysql,
};
