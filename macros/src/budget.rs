//! `budget(...)`: checks that all instances together leave the server enough connections.
//!
//! `max x instances < share x connections`, in millionths, because 0.07 x 100 is not 7 in floating point.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Ident, LitFloat};

use crate::args::{Args, Value};
use crate::diag::Diagnostics;
use crate::number::{Limits, integer, share};
use crate::settings::DEFAULT_MAX;
use crate::value::KeyValue;

const MILLION: u128 = 1_000_000;
const DEFAULT_SHARE: u64 = 800_000;
const COUNT: Limits = Limits {
    least: 1,
    most: u32::MAX as u64,
    note: "",
    ty: "u32",
};

pub(crate) struct Budget {
    key: Ident,
    instances: KeyValue<u64>,
    connections: KeyValue<u64>,
    share: KeyValue<u64>,
}

/// A check that the runtime's `check_budget` makes at compile time, because a constant expression is involved.
pub(crate) struct BudgetCheck {
    pub(crate) key: Ident,
    /// One per resource; `None` for the runtime's default.
    pub(crate) max: Vec<Option<TokenStream>>,
    pub(crate) instances: TokenStream,
    pub(crate) connections: TokenStream,
    pub(crate) share: TokenStream,
}

impl Budget {
    pub(crate) fn read(args: &Args, diag: &mut Diagnostics) -> Option<Self> {
        let entry = args.get("budget")?;
        let Value::List(list) = &entry.value else {
            return None;
        };
        let missing: Vec<&str> = ["instances", "connections"]
            .into_iter()
            .filter(|name| list.get(name).is_none())
            .collect();
        if !missing.is_empty() {
            diag.error(
                &entry.ident,
                format_args!(
                    "`budget` lacks {}: write e.g. `{}`",
                    crate::diag::list(missing),
                    entry.key.example
                ),
            );
        }
        let default_share = KeyValue::Known {
            value: DEFAULT_SHARE,
            tokens: TokenStream::new(),
        };
        Some(Self {
            key: entry.ident.clone(),
            instances: integer(list, "instances", COUNT, diag).unwrap_or(KeyValue::Invalid),
            connections: integer(list, "connections", COUNT, diag).unwrap_or(KeyValue::Invalid),
            share: share(list, diag).unwrap_or(default_share),
        })
    }

    /// The number of instances, as it was written.
    pub(crate) fn instances(&self) -> Option<TokenStream> {
        self.instances.tokens().cloned()
    }

    /// The share as it was written, as a float.
    pub(crate) fn written_share(&self) -> Option<TokenStream> {
        let tokens = self.share.tokens()?;
        // The default has no tokens.
        (!tokens.is_empty())
            .then(|| self.share_as_float())
            .flatten()
    }

    fn share_as_float(&self) -> Option<TokenStream> {
        match &self.share {
            KeyValue::Known { value, .. } => {
                let share = millionths((*value).into(), true);
                Some(LitFloat::new(&share, Span::call_site()).into_token_stream())
            }
            share => share.tokens().cloned(),
        }
    }

    /// Checks the budget against the `max` of every resource that it counts.
    pub(crate) fn check(
        &self,
        max: &[Option<KeyValue<u64>>],
        diag: &mut Diagnostics,
    ) -> Option<BudgetCheck> {
        let known: Option<Vec<u64>> = max
            .iter()
            .map(|max| max.as_ref().map_or(Some(DEFAULT_MAX), KeyValue::known))
            .collect();
        if let (Some(max), Some(instances), Some(connections), Some(share)) = (
            known,
            self.instances.known(),
            self.connections.known(),
            self.share.known(),
        ) {
            let sum = Sum {
                max: max.iter().copied().map(u128::from).sum(),
                instances: instances.into(),
                connections: connections.into(),
                share: share.into(),
            };
            if !sum.fits() {
                diag.error(&self.key, sum.message(&max));
            }
            return None;
        }
        let share = self.share_as_float()?;
        Some(BudgetCheck {
            key: self.key.clone(),
            max: max
                .iter()
                .map(|max| match max {
                    Some(max) => max.tokens().cloned().map(Some),
                    None => Some(None),
                })
                .collect::<Option<_>>()?,
            instances: self.instances.tokens()?.clone(),
            connections: self.connections.tokens()?.clone(),
            share,
        })
    }
}

/// Whole numbers; `share` in millionths.
struct Sum {
    max: u128,
    instances: u128,
    connections: u128,
    share: u128,
}

impl Sum {
    fn limit(&self) -> u128 {
        self.share * self.connections
    }

    fn fits(&self) -> bool {
        self.max * self.instances * MILLION < self.limit()
    }

    /// The error: the sum, and each single change that would make it fit.
    fn message(&self, each: &[u64]) -> String {
        let Self {
            max,
            instances,
            connections,
            share,
        } = self;
        let several = each.len() > 1;
        let added = if several {
            let each: Vec<String> = each.iter().map(u64::to_string).collect();
            format!("{} = ", each.join(" + "))
        } else {
            String::new()
        };
        // The most connections that are still below the limit.
        let room = (self.limit() - 1) / MILLION;
        let mut fixes = Vec::new();
        let most = room / instances;
        if most >= each.len() as u128 {
            fixes.push(if several {
                format!("lower the sum of all `max` to {most}")
            } else {
                format!("lower `max` to {most}")
            });
        }
        if room >= *max {
            let lower = if fixes.is_empty() { "lower " } else { "" };
            fixes.push(format!("{lower}`instances` to {}", room / max));
        }
        let enough = max * instances * MILLION / share + 1;
        if enough <= u32::MAX.into() {
            fixes.push(format!("raise `connections` to {enough}"));
        }
        format!(
            "budget does not fit: `max` {added}{max} x {instances} instances = {wanted} connections, but it must stay \
             under {share} x {connections} = {limit}: {fixes}",
            wanted = max * instances,
            share = millionths(*share, false),
            limit = millionths(self.limit(), false),
            fixes = fixes.join(", or "),
        )
    }
}

/// Formats `800_000` as "0.8" and `80_000_000` as "80", or as "80.0" if `float`.
fn millionths(millionths: u128, float: bool) -> String {
    let (whole, decimals) = (millionths / MILLION, millionths % MILLION);
    let decimals = format!("{decimals:06}");
    match decimals.trim_end_matches('0') {
        "" if float => format!("{whole}.0"),
        "" => whole.to_string(),
        decimals => format!("{whole}.{decimals}"),
    }
}
