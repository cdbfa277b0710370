//! IPv6 hosts, in brackets as in URLs.

use super::login::{assert_in, assert_refused, insert_into_mongodb, mongodb_url_at, relayed};
use serde_json::json;
use std::net::Ipv6Addr;
use support::{MariaDb, MongoDb, Postgres, mariadb, mongodb, postgres};

/// The address is local, so the URL needs no TLS setting.
#[tokio::test]
async fn sql_servers_accept_ipv6_address() {
    let (user, password) = (Postgres::USER, Postgres::PASSWORD);
    let address = relayed(Ipv6Addr::LOCALHOST.into(), postgres().port()).await;
    for handler in ["single", "pool"] {
        let url = format!("postgres://{user}:{password}@{address}/app");
        assert_in(handler, &format!("{url}?sslmode=disable"), false).await;
        assert_in(handler, &url, true).await;
        let url = format!("postgres://{user}:hunter2@{address}/app");
        // sqlx's pool does not name the address.
        let here = match handler {
            "single" => format!("PostgreSQL at {address}/app rejected the credentials"),
            _ => String::new(),
        };
        assert_refused(handler, &url, "Authentication", &[&here]).await;
    }
    let (user, password) = (MariaDb::USER, MariaDb::PASSWORD);
    let address = relayed(Ipv6Addr::LOCALHOST.into(), mariadb().port()).await;
    for handler in ["mysql_single", "mysql_pool"] {
        let url = format!("mysql://{user}:{password}@{address}/app");
        assert_in(handler, &format!("{url}?ssl-mode=DISABLED"), false).await;
        assert_in(handler, &url, true).await;
        let url = format!("mysql://{user}:hunter2@{address}/app");
        let here = match handler {
            "mysql_single" => format!("MySQL at {address}/app rejected the credentials"),
            _ => String::new(),
        };
        assert_refused(handler, &url, "Authentication", &[&here]).await;
    }
}

#[tokio::test]
async fn mongodb_accepts_ipv6_address() {
    let address = relayed(Ipv6Addr::LOCALHOST.into(), mongodb().port()).await;
    let url = mongodb_url_at(address);
    let called = insert_into_mongodb(&url).await;
    assert_eq!(called.answer(), &json!(1), "{called:?}");
    let called = insert_into_mongodb(&url.replace(MongoDb::PASSWORD, "hunter2")).await;
    let (error_type, message) = called.error();
    assert_eq!(error_type, "Authentication", "{message}");
    assert!(
        message.contains(&format!("MongoDB at {address} ")),
        "{message}"
    );
}
