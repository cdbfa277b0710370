//! Faults of the network, and their command-line syntax.

use std::{fmt, str::FromStr, time::Duration};

use crate::plan::parse_duration;

/// A change of the network between function and database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// `dark-existing`: open connections transfer nothing for ever and are not closed; new ones work. Like a
    /// NAT gateway or load balancer that has dropped an idle flow.
    DarkExisting,
    /// `dark-new`: new connections are accepted and get no reply; open ones work.
    DarkNew,
    /// `dark`: nothing passes and nothing is closed, until `heal`.
    Dark,
    /// `reset`: open connections get a RST.
    ResetExisting,
    /// `cut:N`: open connections get N more bytes from the database, then a RST.
    CutExisting(u64),
    /// `cut-new:N`: the same for new connections.
    CutNew(u64),
    /// `refuse`: new connections are refused.
    Refuse,
    /// `silence`: new connections are accepted and get no reply (same as `dark-new`).
    Silence,
    /// `heal`: ends all faults, except for connections that `dark-existing` made dark.
    Heal,
    /// `rtt:5ms`: another round-trip time, for new connections.
    Rtt(Duration),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let bytes = || {
            value
                .parse()
                .map_err(|_| format!("`{name}` needs a number of bytes: {name}:1024"))
        };
        Ok(match name {
            "dark-existing" => Self::DarkExisting,
            "dark-new" => Self::DarkNew,
            "dark" => Self::Dark,
            "reset" => Self::ResetExisting,
            "cut" => Self::CutExisting(bytes()?),
            "cut-new" => Self::CutNew(bytes()?),
            "refuse" => Self::Refuse,
            "silence" => Self::Silence,
            "heal" => Self::Heal,
            "rtt" => Self::Rtt(parse_duration(value)?),
            _ => {
                return Err(format!(
                    "unknown fault `{name}`: dark-existing, dark-new, dark, reset, cut:N, cut-new:N, \
                     refuse, silence, heal or rtt:DURATION"
                ));
            }
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DarkExisting => f.write_str("dark-existing"),
            Self::DarkNew => f.write_str("dark-new"),
            Self::Dark => f.write_str("dark"),
            Self::ResetExisting => f.write_str("reset"),
            Self::CutExisting(bytes) => write!(f, "cut:{bytes}"),
            Self::CutNew(bytes) => write!(f, "cut-new:{bytes}"),
            Self::Refuse => f.write_str("refuse"),
            Self::Silence => f.write_str("silence"),
            Self::Heal => f.write_str("heal"),
            Self::Rtt(rtt) => write!(f, "rtt:{rtt:?}"),
        }
    }
}
