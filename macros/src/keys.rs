//! The table of keys. New keys go here.

use crate::diag;

/// A key of the attribute.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// An example, shown in errors about the key's form.
    pub(crate) example: &'static str,
    /// The keys of `key(...)`; empty for `key = value`.
    pub(crate) keys: &'static [Key],
    /// Whether `#[db(...)]` on a parameter accepts it too.
    pub(crate) on_parameter: bool,
}

impl Key {
    const fn value(name: &'static str, example: &'static str) -> Self {
        Self {
            name,
            example,
            keys: &[],
            on_parameter: true,
        }
    }

    pub(crate) fn takes_list(&self) -> bool {
        !self.keys.is_empty()
    }
}

const KEYS: &[Key] = &[
    Key::value("env", "env = \"DATABASE_URL\""),
    Key {
        keys: &[
            Key::value("max", "max = 2"),
            Key::value("min", "min = 1"),
            Key::value("idle_ms", "idle_ms = 60000"),
            Key::value("acquire_ms", "acquire_ms = 3000"),
            Key::value("lifetime_ms", "lifetime_ms = 600000"),
        ],
        ..Key::value("pool", "pool(max = 2)")
    },
    Key::value("close", "close = \"always\""),
    Key {
        keys: &[
            Key::value("trust_ms", "trust_ms = 1000"),
            Key::value("ping_ms", "ping_ms = 250"),
        ],
        ..Key::value("check", "check(trust_ms = 1000)")
    },
    Key {
        keys: &[Key::value("reserve_ms", "reserve_ms = 250")],
        on_parameter: false,
        ..Key::value("deadline", "deadline(reserve_ms = 250)")
    },
    Key {
        on_parameter: false,
        ..Key::value("background", "background = \"wait\"")
    },
    Key::value("connect", "connect = \"lazy\""),
    Key::value("credentials", "credentials = DB_SECRET"),
    Key::value("proxy", "proxy = \"rds\""),
    Key {
        keys: &[
            Key::value("instances", "instances = 30"),
            Key::value("connections", "connections = 100"),
            Key::value("share", "share = 0.8"),
        ],
        ..Key::value("budget", "budget(instances = 30, connections = 100)")
    },
    Key {
        on_parameter: false,
        ..Key::value("crate", "crate = ::my_facade::db_handler")
    },
];

/// Where keys are written. It decides which keys are valid.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// `#[db_handler(...)]`
    Attribute,
    /// `#[db(...)]` on a parameter
    Parameter,
    /// The list of a key, such as `pool(...)`
    Nested(&'static Key),
}

impl Place {
    pub(crate) fn keys(self) -> impl Iterator<Item = &'static Key> {
        let keys = match self {
            Place::Attribute | Place::Parameter => KEYS,
            Place::Nested(key) => key.keys,
        };
        keys.iter()
            .filter(move |key| key.on_parameter || !matches!(self, Place::Parameter))
    }

    pub(crate) fn find(self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// Formats the valid keys as "`env`, `pool`, ..."
    pub(crate) fn known(self) -> String {
        diag::list(self.keys().map(|key| key.name))
    }

    /// The error for a key that is not valid here. It says where the key is valid, if anywhere.
    pub(crate) fn unknown(self, name: &str) -> String {
        if let Place::Nested(outer) = self
            && let Some(key) = Place::Attribute.find(name)
        {
            return format!(
                "`{name}` is not a key of `{outer}`: write it beside, e.g. `{outer}(...), {example}`",
                outer = outer.name,
                example = key.example,
            );
        }
        if let Place::Parameter = self
            && let Some(key) = Place::Attribute.find(name)
        {
            return format!(
                "`{name}` is not a key of a parameter: write `#[db_handler({})]`",
                key.example
            );
        }
        let owner = KEYS.iter().find_map(|outer| {
            let key = Place::Nested(outer).find(name)?;
            Some((outer, key))
        });
        if let Some((outer, key)) = owner {
            return format!(
                "`{name}` is a key of `{outer}`: write `{outer}({example})`",
                outer = outer.name,
                example = key.example,
            );
        }
        let hint = diag::suggestion(name, self.keys().map(|key| key.name));
        format!(
            "unknown key `{name}`; expected one of {}{hint}",
            self.known()
        )
    }
}
