//! Items that the attribute's expansion calls. Not a stable interface: the macro crate is pinned to this
//! version.

pub use crate::{
    config::{
        BackgroundPolicy, Close, Config, Connect, Proxy,
        budget::{check_budget, check_min, check_min_by_default},
    },
    credentials::Source,
    lifecycle::{default_close, handle, registry::Registered, signature, site::Site},
    resource::{
        param::{Ref, RefMut},
        proxy::{rds_proxy_safe, transaction_pooling_safe},
    },
};
pub use inventory;
