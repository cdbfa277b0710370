//! Over which connection a password goes, and what is said when none of it works.

mod ipv6;
mod login;
mod secrets;
mod tls;
mod urls;
