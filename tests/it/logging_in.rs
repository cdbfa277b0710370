//! Login: which connections may carry a password, and the errors when login fails.

mod ipv6;
mod login;
mod secrets;
mod tls;
mod urls;
