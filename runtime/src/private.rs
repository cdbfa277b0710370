//! What the attribute's expansion calls. No stable interface: the macro crate is pinned to it.

pub use crate::{
    budget::{check_budget, check_min, check_min_by_default},
    config::{Close, Config, Connect, Proxy, Tasks},
    credentials::Source,
    lifecycle::{Ref, RefMut, default_close, handle, signature},
    registry::Registered,
    resource::proxy::{session_pooled, transaction_pooled},
    site::Site,
};
pub use inventory;
