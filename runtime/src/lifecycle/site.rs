//! The static data of one annotated handler: its name, its settings, and the slots of its resources.

use super::slot::Slot;
use crate::{
    config::{BackgroundPolicy, Config, RESERVE, Settings},
    resource::Resource,
    util::lock::lock,
};
use std::{
    any::{Any, TypeId},
    fmt,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

/// One per annotated handler, in a static of the expansion.
///
/// It has no type parameters, so that a generic handler can have one in a static, too. A slot is found by the
/// type of its resource.
pub struct Site {
    module: &'static str,
    function: &'static str,
    configs: &'static [Config],
    name: OnceLock<String>,
    slots: Mutex<Vec<Entry>>,
}

struct Entry {
    parameter: usize,
    resource: TypeId,
    slot: Arc<dyn Any + Send + Sync>,
}

impl Site {
    /// Creates a site. `configs` has one entry for each resource parameter, in their order.
    #[must_use]
    pub const fn new(
        module: &'static str,
        function: &'static str,
        configs: &'static [Config],
    ) -> Self {
        Self {
            module,
            function,
            configs,
            name: OnceLock::new(),
            slots: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn module(&self) -> &'static str {
        self.module
    }

    /// Returns the handler's name, as `module::function`.
    pub(crate) fn name(&self) -> &str {
        self.name
            .get_or_init(|| format!("{}::{}", self.module, self.function))
    }

    /// Returns whether `type_name`, the name of a function's type, is that of this handler. The type name of a
    /// function in a function or in an `impl` has more segments between the module and the function's name.
    pub(crate) fn is_named(&self, type_name: &str) -> bool {
        type_name
            .strip_prefix(self.module)
            .and_then(|rest| rest.strip_suffix(self.function))
            .is_some_and(|between| between.starts_with("::") && between.ends_with("::"))
    }

    /// Returns how long before the deadline the handler is cancelled, and how long its cleanup may take.
    pub(crate) fn reserve(&self) -> Duration {
        let written = self.configs.iter().map(Config::reserve);
        written.max().unwrap_or(RESERVE)
    }

    /// Returns what happens to background tasks when the handler returns.
    pub(crate) fn background(&self) -> BackgroundPolicy {
        let written = self.configs.iter().find_map(|config| config.background);
        written.unwrap_or(BackgroundPolicy::Wait)
    }

    pub(crate) fn settings<R: Resource>(&self, parameter: usize) -> Settings {
        let written = self.configs.get(parameter).copied().unwrap_or_default();
        Settings::new(&written, &R::DEFAULTS)
    }

    pub(crate) fn slot<R: Resource>(&self, parameter: usize) -> Arc<Slot<R>> {
        let mut slots = lock(&self.slots);
        let resource = TypeId::of::<R>();
        let known = slots
            .iter()
            .find(|entry| entry.parameter == parameter && entry.resource == resource)
            .and_then(|entry| Arc::clone(&entry.slot).downcast::<Slot<R>>().ok());
        known.unwrap_or_else(|| {
            let slot = Slot::new();
            slots.push(Entry {
                parameter,
                resource,
                slot: Arc::clone(&slot) as Arc<dyn Any + Send + Sync>,
            });
            slot
        })
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("name", &self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_known_by_the_name_of_its_type() {
        let site = Site::new("orders::api", "create", &[]);
        assert_eq!(site.name(), "orders::api::create");
        for name in [
            "orders::api::create",
            "orders::api::main::create",
            "orders::api::Api::create",
        ] {
            assert!(site.is_named(name), "{name}");
        }
        for name in [
            "orders::create",
            "orders::api::recreate",
            "orders::api::create::{{closure}}",
            "other::api::create",
        ] {
            assert!(!site.is_named(name), "{name}");
        }
    }
}
