//! The validated handler. All errors are reported before it is complete; nothing fails afterwards.

use proc_macro2::TokenStream;
use syn::Meta;

use crate::args::Args;
use crate::budget::{Budget, BudgetCheck};
use crate::diag::Diagnostics;
use crate::item::{HandlerFn, Kind, Param};
use crate::keys::Place;
use crate::path::RuntimePath;
use crate::settings::{MinCheck, ProxyCheck, Settings};
use crate::{args, signature};

pub(crate) struct Model {
    pub(crate) runtime: RuntimePath,
    /// One per resource parameter, in order.
    pub(crate) settings: Vec<Settings>,
    /// Each with the index of its resource parameter.
    pub(crate) min_checks: Vec<(usize, MinCheck)>,
    /// Each with the index of its resource parameter.
    pub(crate) proxy_checks: Vec<(usize, ProxyCheck)>,
    pub(crate) budget_checks: Vec<BudgetCheck>,
    pub(crate) registered: bool,
}

/// The settings in a resource parameter's own `#[db(...)]`.
struct Override {
    settings: Settings,
    budget: Option<Budget>,
    /// Whether the attribute's budget leaves it out: it has another database, or a budget of its own.
    stands_alone: bool,
}

impl Model {
    pub(crate) fn new(tokens: TokenStream, function: &HandlerFn, diag: &mut Diagnostics) -> Self {
        let args = Args::parse(tokens, Place::Attribute, diag);
        let runtime = match args.get("crate").map(|entry| &entry.value) {
            Some(args::Value::Expr(value)) => RuntimePath::read(value, diag),
            _ => RuntimePath::default(),
        };
        let attribute = Settings::read(&args, diag);
        let budget = Budget::read(&args, diag);

        let mut settings = Vec::new();
        let mut min_checks = Vec::new();
        let mut proxy_checks = Vec::new();
        let mut budget_checks = Vec::new();
        let mut counted = Vec::new();
        for param in &function.params {
            let Some(own) = Override::read(param, diag) else {
                continue;
            };
            let counted_by = own.budget.as_ref().or(budget.as_ref());
            let merged = own.settings.or(&attribute).within(
                counted_by.and_then(Budget::instances),
                counted_by.and_then(Budget::written_share),
            );
            let number = settings.len();
            min_checks.extend(merged.check_min(diag).map(|check| (number, check)));
            proxy_checks.extend(merged.check_proxy(diag).map(|check| (number, check)));
            if let Some(budget) = own.budget {
                budget_checks.extend(budget.check(std::slice::from_ref(&merged.max), diag));
            }
            if !own.stands_alone {
                counted.push(merged.max.clone());
            }
            settings.push(merged);
        }
        if settings.is_empty() {
            // The missing resource is reported below. The attribute's own errors are reported as well.
            attribute.check_min(diag);
            attribute.check_proxy(diag);
            counted.push(attribute.max);
        }
        if let Some(budget) = budget
            && !counted.is_empty()
        {
            budget_checks.extend(budget.check(&counted, diag));
        }

        signature::check(function, diag);
        Self {
            runtime,
            settings,
            min_checks,
            proxy_checks,
            budget_checks,
            registered: signature::can_be_registered(function),
        }
    }
}

impl Override {
    /// Reads the `#[db(...)]` of a resource. On any other parameter it is an error.
    fn read(param: &Param, diag: &mut Diagnostics) -> Option<Self> {
        let is_resource = matches!(param.kind, Kind::Resource { .. });
        let mut args = Args::default();
        for attr in &param.db {
            match &attr.meta {
                _ if !is_resource => diag.error(
                    attr,
                    "`#[db(...)]` goes on a resource, which is a parameter taken by reference, e.g. `db: &PgPool`",
                ),
                Meta::List(list) => args.extend(list.tokens.clone(), Place::Parameter, diag),
                Meta::Path(_) => diag.error(
                    attr,
                    "`#[db]` says nothing: remove it, or write e.g. `#[db(env = \"REPLICA_URL\")]`",
                ),
                Meta::NameValue(_) => diag.error(
                    attr,
                    "`#[db]` takes a list: write e.g. `#[db(env = \"REPLICA_URL\")]`",
                ),
            }
        }
        is_resource.then(|| Self {
            settings: Settings::read(&args, diag),
            budget: Budget::read(&args, diag),
            stands_alone: args.get("env").is_some() || args.get("budget").is_some(),
        })
    }
}
