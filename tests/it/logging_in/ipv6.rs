//! A host that is an IPv6 address, as URLs write it: in brackets.

use super::login::{assert_in, assert_refused, insert_into_mongodb, mongodb_url_at, relayed};
use serde_json::json;
use std::net::Ipv6Addr;
use support::{MariaDb, MongoDb, Postgres, mariadb, mongodb, postgres};

/// It is this machine: nothing has to be written about TLS.
#[tokio::test]
async fn sql_is_reached_at_an_ipv6_address() {
    let (user, password) = (Postgres::USER, Postgres::PASSWORD);
    let address = relayed(Ipv6Addr::LOCALHOST.into(), postgres().port()).await;
    for handler in ["single", "pool"] {
        let url = format!("postgres://{user}:{password}@{address}/app");
        assert_in(handler, &format!("{url}?sslmode=disable"), false).await;
        assert_in(handler, &url, true).await;
        let url = format!("postgres://{user}:hunter2@{address}/app");
        // sqlx's own pool does not say where it was refused.
        let here = match handler {
            "single" => format!("PostgreSQL at {address}/app did not let us in"),
            _ => String::new(),
        };
        assert_refused(handler, &url, "AuthenticationFailed", &[&here]).await;
    }
    let (user, password) = (MariaDb::USER, MariaDb::PASSWORD);
    let address = relayed(Ipv6Addr::LOCALHOST.into(), mariadb().port()).await;
    for handler in ["mysql_single", "mysql_pool"] {
        let url = format!("mysql://{user}:{password}@{address}/app");
        assert_in(handler, &format!("{url}?ssl-mode=DISABLED"), false).await;
        assert_in(handler, &url, true).await;
        let url = format!("mysql://{user}:hunter2@{address}/app");
        let here = match handler {
            "mysql_single" => format!("MySQL at {address}/app did not let us in"),
            _ => String::new(),
        };
        assert_refused(handler, &url, "AuthenticationFailed", &[&here]).await;
    }
}

#[tokio::test]
async fn mongodb_is_reached_at_an_ipv6_address() {
    let address = relayed(Ipv6Addr::LOCALHOST.into(), mongodb().port()).await;
    let url = mongodb_url_at(address);
    let called = insert_into_mongodb(&url).await;
    assert_eq!(called.answer(), &json!(1), "{called:?}");
    let called = insert_into_mongodb(&url.replace(MongoDb::PASSWORD, "hunter2")).await;
    let (error_type, message) = called.error();
    assert_eq!(error_type, "AuthenticationFailed", "{message}");
    assert!(
        message.contains(&format!("MongoDB at {address} ")),
        "{message}"
    );
}
