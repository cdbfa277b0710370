//! The plan of one invocation: what the handler does, the preceding incident, and the permitted outcomes.

use super::random::Random;
use crate::world::{Product, REFUSED};
use sandbox::Outcome;
use serde_json::{Value, json};

/// What the handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    Ask,
    InARow,
    SideBySide,
    Guards,
    Commit,
    RollBack,
    DropTransaction,
    RawBegin,
    LeaveSettings,
    GiveUp,
    DropStream,
    GivenUpByItsCaller,
    EscapeLater,
    EscapeInTheMiddle,
    Fail,
    Panic,
    PanicInATransaction,
    Refused,
    Twin,
    OneTooMany,
    BeyondTheDeadline,
    HoldBeyondTheDeadline,
    /// The server ends the connection that the handler uses.
    KillsItsOwn,
    /// An operation on a connection itself, dropped before it completes.
    Hand(&'static str),
}

use Deed::*;

pub(crate) const DEEDS: &[(Deed, u64)] = &[
    (Ask, 20),
    (InARow, 8),
    (SideBySide, 8),
    (Guards, 4),
    (Commit, 8),
    (RollBack, 4),
    (DropTransaction, 5),
    (RawBegin, 4),
    (LeaveSettings, 4),
    (GiveUp, 5),
    (DropStream, 4),
    (GivenUpByItsCaller, 4),
    (EscapeLater, 4),
    (EscapeInTheMiddle, 3),
    (Fail, 4),
    (Panic, 3),
    (PanicInATransaction, 2),
    (Refused, 3),
    (Twin, 4),
    (OneTooMany, 1),
    (BeyondTheDeadline, 1),
    (HoldBeyondTheDeadline, 1),
    (Hand("copy_in"), 1),
    (Hand("copy_in_and_go_on"), 1),
    (Hand("copy_in_begun"), 1),
    (Hand("copy_out"), 1),
    (Hand("copy_out_large"), 1),
    (Hand("copy_out_endless"), 1),
    (Hand("copy_out_refused"), 1),
    (Hand("copy_out_begun"), 1),
    (Hand("copy_as_a_query"), 1),
    (Hand("cursor"), 1),
    (Hand("prepare"), 2),
    (Hand("statements"), 2),
    (Hand("begin"), 2),
];

/// Whether a database supports this operation on a connection.
fn knows(product: Product, deed: &str) -> bool {
    match product {
        Product::Postgres => true,
        Product::MariaDb => matches!(deed, "prepare" | "statements" | "begin"),
        Product::Sqlite => matches!(deed, "statements" | "begin"),
    }
}

/// Results of queries that differ only in their row.
const WORDS: &[(&str, u64)] = &[
    ("tea", 1),
    ("cups", 1),
    ("milk", 1),
    ("sugar", 1),
    ("spoons", 1),
    ("water", 1),
];

/// What happens while the environment is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Incident {
    Nothing,
    LongPause,
    /// The connections are lost in a long pause: they are pinged before use.
    DarkLong,
    ResetLong,
    KillLong,
    /// The connections are lost within `trust_ms`: they are reused without a ping.
    DarkShort,
    ResetShort,
    KillShort,
    /// No new connections during the invocation.
    Refused,
    Silence,
}

const INCIDENTS: &[(Incident, u64)] = &[
    (Incident::Nothing, 78),
    (Incident::LongPause, 2),
    (Incident::DarkLong, 4),
    (Incident::ResetLong, 2),
    (Incident::KillLong, 4),
    (Incident::DarkShort, 1),
    (Incident::ResetShort, 3),
    (Incident::KillShort, 3),
    (Incident::Refused, 2),
    (Incident::Silence, 1),
];

impl Incident {
    pub(crate) fn is_long(self) -> bool {
        matches!(
            self,
            Self::LongPause | Self::DarkLong | Self::ResetLong | Self::KillLong
        )
    }

    /// Whether a connection may be dead and reused without a ping.
    fn surprises(self) -> bool {
        matches!(self, Self::DarkShort | Self::ResetShort | Self::KillShort)
    }

    /// Whether the network prevents cancellation: it is closed or dark.
    pub(crate) fn hides(self) -> bool {
        self.bars() || matches!(self, Self::DarkLong | Self::DarkShort)
    }

    /// Whether no new connection can be opened.
    fn bars(self) -> bool {
        matches!(self, Self::Refused | Self::Silence)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) deed: Deed,
    pub(crate) incident: Incident,
    /// The value that the handler queries and must receive.
    pub(crate) word: &'static str,
    /// Whether the server is inspected afterwards.
    pub(crate) inspect: bool,
}

impl Scene {
    pub(crate) fn draw(random: &mut Random, product: Product, kind: &str) -> Self {
        let deed = loop {
            let deed = random.pick(DEEDS);
            if possible(deed, product, kind) {
                break deed;
            }
        };
        let incident = match random.pick(INCIDENTS) {
            // There is no network.
            _ if product == Product::Sqlite => Incident::Nothing,
            incident => incident,
        };
        let inspect = random.chance(5);
        let word = random.pick(WORDS);
        Self {
            deed,
            incident,
            word,
            inspect,
        }
    }

    /// A scene without an incident, whose deed is one of these.
    pub(crate) fn calm(
        random: &mut Random,
        deeds: &[(Deed, u64)],
        product: Product,
        kind: &str,
    ) -> Self {
        let deed = loop {
            let deed = random.pick(deeds);
            if possible(deed, product, kind) {
                break deed;
            }
        };
        Self {
            deed,
            incident: Incident::Nothing,
            word: random.pick(WORDS),
            inspect: false,
        }
    }

    pub(crate) fn steps(self, product: Product, kind: &str) -> Value {
        let session = product.session();
        let endless = product.endless();
        let ask = json!({ "ask": session });
        let insert = "INSERT INTO orders VALUES (1)";
        let transaction = |end: &str| json!({ "transaction": { "sql": insert, "end": end } });
        let settings = match product {
            Product::Postgres => "SET work_mem = '123kB'; CREATE TEMPORARY TABLE basket (id INT)",
            Product::MariaDb => "SET @tenant = 'acme'; CREATE TEMPORARY TABLE basket (id INT)",
            Product::Sqlite => "PRAGMA query_only = 0; CREATE TEMPORARY TABLE basket (id INT)",
        };
        let begin = json!({ "run": format!("BEGIN; {insert}") });
        let hold =
            json!({ "transaction": { "sql": format!("{insert}; {endless}"), "end": "commit" } });
        let after_asking = match self.deed {
            Ask => vec![],
            InARow => vec![ask.clone(), ask.clone(), ask.clone()],
            SideBySide => vec![json!({ "together": vec![session; 3] })],
            Guards => vec![json!({ "guards": { "count": 2, "sql": session } })],
            Commit => vec![transaction("commit")],
            RollBack => vec![transaction("rollback")],
            DropTransaction => vec![transaction("drop")],
            RawBegin => vec![begin],
            LeaveSettings => vec![json!({ "run": settings })],
            GiveUp => vec![json!({ "give_up": { "sql": endless, "ms": 20 } })],
            DropStream => vec![json!({ "first_row": product.rows() })],
            GivenUpByItsCaller => {
                let steps = [ask.clone(), json!({ "ask": endless })];
                return json!([{ "dropped": { "steps": steps, "ms": 100 } }]);
            }
            EscapeLater => vec![json!({ "escape": { "sql": session, "ms": 30 } })],
            EscapeInTheMiddle => vec![
                json!({ "escape": { "sql": endless, "ms": 0 } }),
                json!({ "linger": 20 }),
            ],
            Fail => vec![json!("fail")],
            Panic => vec![json!("panic")],
            PanicInATransaction => vec![begin, json!("panic")],
            Refused => vec![json!({ "ask": REFUSED })],
            Twin => vec![json!({ "together": [endless, REFUSED] })],
            OneTooMany => vec![json!({ "guards": { "count": 3, "sql": session } })],
            BeyondTheDeadline => vec![json!({ "ask": endless })],
            HoldBeyondTheDeadline => vec![hold],
            KillsItsOwn => vec![json!({ "ask": product.ending_its_connection() })],
            Hand(deed) => vec![json!({ "hand": deed })],
        };
        let word = json!({ "ask": format!("SELECT '{}'", self.word) });
        let mut steps = vec![word.clone(), ask];
        steps.extend(after_asking);
        // A single connection is not restored until the invocation ends.
        if matches!(self.deed, Hand(_)) && kind != "single" {
            steps.extend([word.clone(), word]);
        }
        json!(steps)
    }

    /// Returns an error if a query returned another query's row.
    pub(crate) fn mixed_up(self, kind: &str, answers: &Value) -> Option<String> {
        if self.deed == GivenUpByItsCaller {
            return None;
        }
        let answers = answers.as_array()?;
        let after = match self.deed {
            Hand(_) if kind != "single" => answers.len().saturating_sub(2)..answers.len(),
            _ => 0..0,
        };
        let of_ours = answers.first().into_iter().chain(&answers[after]);
        let mut others = of_ours.filter(|answer| **answer != json!(self.word));
        others
            .next()
            .map(|other| format!("{other} came instead of {:?}", self.word))
    }

    /// The error type of the invocation without an incident; `None` if it succeeds.
    fn planned(self) -> Option<&'static str> {
        Some(match self.deed {
            Fail => "Handler",
            Panic | PanicInATransaction => PANICKED,
            Refused | Twin => "Query",
            OneTooMany => "PoolExhausted",
            BeyondTheDeadline | HoldBeyondTheDeadline => "DeadlineExceeded",
            KillsItsOwn => "ConnectionLost",
            _ => return None,
        })
    }

    /// Returns what is wrong with this outcome. `shaken`: an earlier incident may still have an effect.
    pub(crate) fn judge(self, close: &str, shaken: bool, outcome: &Outcome) -> Option<String> {
        let keeps = close != "always";
        let excused = self.incident.bars() || keeps && (self.incident.surprises() || shaken);
        match outcome {
            Outcome::Answered { .. } if self.planned().is_none() || self.deed == Twin => {
                // No connection can be opened, so no invocation can have got one.
                let impossible = self.incident.bars() && !keeps && self.deed != GivenUpByItsCaller;
                impossible.then(|| "it was answered without a connection".to_owned())
            }
            Outcome::Failed {
                error_type,
                message,
            } => {
                let as_planned = match self.planned() {
                    // The platform's runtime formats panics itself.
                    Some(PANICKED) => message.contains("told to panic"),
                    planned => planned == Some(error_type),
                };
                let by_the_network = excused && NETWORK.contains(&error_type.as_str());
                (!as_planned && !by_the_network)
                    .then(|| format!("it should have ended with {:?}", self.planned()))
            }
            _ => Some(format!("it should have ended with {:?}", self.planned())),
        }
    }
}

const PANICKED: &str = "a panic";

/// Error types that a broken network may cause.
const NETWORK: &[&str] = &[
    "ConnectionLost",
    "ConnectionRefused",
    "ConnectTimeout",
    "PoolExhausted",
    "ServerUnreachable",
    "ServerUnavailable",
    "DeadlineExceeded",
];

/// Whether the deed is possible with this kind: a single connection supports fewer than several.
fn possible(deed: Deed, product: Product, kind: &str) -> bool {
    if let Hand(deed) = deed {
        return knows(product, deed);
    }
    let needs_several = matches!(
        deed,
        SideBySide | Guards | EscapeLater | EscapeInTheMiddle | Twin | OneTooMany
    );
    kind != "single" || !needs_several
}

/// Whether the broken connections have been noticed and replaced after this outcome.
pub(crate) fn noticed(incident: Incident, shaken: bool, outcome: &Outcome) -> bool {
    !(incident.surprises() || shaken) || !matches!(outcome, Outcome::Answered { .. })
}
