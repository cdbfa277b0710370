//! Marker traits for resources that are safe behind a proxy that shares server sessions between clients.

/// A resource that is safe with transaction pooling: behind PgBouncer, or behind RDS Proxy with reused
/// connections.
///
/// Such a pooler may run each transaction of a client in another session of the server, and the transactions of
/// other clients in the same session. A resource must leave nothing in a session that another client could see
/// or miss (`SET`, prepared statements, temporary tables, locks), and must put all that belongs together into
/// one transaction. Of this crate's types for PostgreSQL, only
/// [`PgBouncerTransaction`](crate::drivers::sql::PgBouncerTransaction) does.
///
/// Implement it for a resource of your own that has no such session, or follows these rules:
///
/// ```
/// use db_handler::{Error, config::Defaults, resource::{AcquireContext, Resource, TransactionPoolingSafe}};
///
/// struct Rates(Vec<(String, f64)>);
///
/// impl Resource for Rates {
///     const NAME: &'static str = "exchange rates";
///     const DEFAULTS: Defaults = Defaults::KEPT;
///
///     async fn open(_: &AcquireContext) -> Result<Self, Error> {
///         Ok(Self(Vec::new()))
///     }
/// }
///
/// impl TransactionPoolingSafe for Rates {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` mixes up the sessions of a proxy that pools transactions",
    label = "others' sessions could be read or changed through this",
    note = "for PostgreSQL take `&mut db_handler::PgBouncerTransaction`, in which nothing can be mixed up",
    note = "behind RDS Proxy, with `close = \"always\"`, every type for PostgreSQL and MySQL is right",
    note = "for a database that is not behind the proxy, write `proxy` into `#[db(...)]` of the parameters that are",
    note = "a resource of your own that keeps nothing in a session may implement `db_handler::resource::TransactionPoolingSafe`"
)]
pub trait TransactionPoolingSafe {}

/// A resource that is safe behind RDS Proxy if its connections are closed after every invocation.
///
/// RDS Proxy pins a session to a client that changes it, and so keeps clients apart; closing the connection
/// ends the pin. Every [`TransactionPoolingSafe`] type also implements this trait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be used behind RDS Proxy",
    label = "not a client of a database that RDS Proxy serves",
    note = "RDS Proxy serves PostgreSQL and MySQL: write `proxy = \"rds\"` into `#[db(...)]` of the parameters that are behind it",
    note = "a resource of your own that keeps nothing in a session may implement `db_handler::resource::TransactionPoolingSafe`"
)]
pub trait RdsProxySafe {}

#[diagnostic::do_not_recommend]
impl<T: TransactionPoolingSafe + ?Sized> RdsProxySafe for T {}

/// Compile-time check that the attribute calls for a parameter behind a transaction pooler.
pub const fn transaction_pooling_safe<T: TransactionPoolingSafe + ?Sized>() {}

/// Compile-time check for RDS Proxy with connections that are closed after every invocation.
pub const fn rds_proxy_safe<T: RdsProxySafe + ?Sized>() {}
