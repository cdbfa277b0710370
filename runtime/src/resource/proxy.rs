//! What may be lent behind a proxy that gives one session of the server to many clients.

/// What is right behind a pooler of transactions: PgBouncer, and RDS Proxy with connections that are kept.
///
/// Such a pooler may give each transaction of a client another session of the server, and each session to other
/// clients in between. What is lent there has to leave nothing in a session that another one could find or
/// miss (`SET`, prepared statements, temporary tables, locks), and must put all that belongs together into one
/// transaction. Of what is here for PostgreSQL, that is
/// [`PgBouncerTransaction`](crate::drivers::sql::PgBouncerTransaction).
///
/// Implement it for a resource of your own that has no such session, or keeps to these rules:
///
/// ```
/// use db_handler::{Error, config::Defaults, resource::{Acquire, Resource, TransactionPoolingSafe}};
///
/// struct Rates(Vec<(String, f64)>);
///
/// impl Resource for Rates {
///     const NAME: &'static str = "exchange rates";
///     const DEFAULTS: Defaults = Defaults::KEPT;
///
///     async fn open(_: &Acquire) -> Result<Self, Error> {
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

/// What is right behind RDS Proxy when its connections are closed after every invocation.
///
/// RDS Proxy pins a session to a client that changes it, and mixes up nothing; a closed connection ends the pin.
/// Everything that is [`TransactionPoolingSafe`] is also this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be lent behind RDS Proxy",
    label = "not a client of a database that RDS Proxy serves",
    note = "RDS Proxy serves PostgreSQL and MySQL: write `proxy = \"rds\"` into `#[db(...)]` of the parameters that are behind it",
    note = "a resource of your own that keeps nothing in a session may implement `db_handler::resource::TransactionPoolingSafe`"
)]
pub trait RdsProxySafe {}

#[diagnostic::do_not_recommend]
impl<T: TransactionPoolingSafe + ?Sized> RdsProxySafe for T {}

/// A check at compile time: the attribute calls it for a parameter behind a pooler of transactions.
pub const fn transaction_pooling_safe<T: TransactionPoolingSafe + ?Sized>() {}

/// The same for RDS Proxy, where connections are closed after every invocation.
pub const fn rds_proxy_safe<T: RdsProxySafe + ?Sized>() {}
