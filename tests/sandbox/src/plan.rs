//! The plan of a fleet: environments, invocations and incidents.

use std::{fmt, str::FromStr, time::Duration};

use crate::{function::Event, proxy::Fault};

/// A schedule for many environments.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of concurrent environments.
    pub environments: usize,
    /// Total number of invocations, distributed evenly.
    pub invocations: usize,
    /// The length of the freeze after each response.
    pub freeze: Duration,
    /// The jump of the wall clock in every freeze, in addition to the real time.
    pub jump: Duration,
    /// The events, used in rotation.
    pub events: Vec<Event>,
    /// In every n-th freeze of each environment its open connections go dark. Staggered, so that the
    /// environments of a fleet do not go dark at the same time.
    pub dark_every: Option<usize>,
    /// Other incidents, in every environment.
    pub faults: Vec<Incident>,
}

impl Plan {
    /// A plan with this many environments and invocations, with empty events and no freeze.
    #[must_use]
    pub fn new(environments: usize, invocations: usize) -> Self {
        Self {
            environments,
            invocations,
            freeze: Duration::ZERO,
            jump: Duration::ZERO,
            events: vec![Event::new("{}")],
            dark_every: None,
            faults: Vec::new(),
        }
    }

    /// The number of invocations of this environment.
    pub(crate) fn share(&self, environment: usize) -> usize {
        let (each, rest) = (
            self.invocations / self.environments,
            self.invocations % self.environments,
        );
        each + usize::from(environment < rest)
    }

    pub(crate) fn event(&self, number: usize) -> Event {
        self.events
            .get(number % self.events.len().max(1))
            .cloned()
            .unwrap_or_default()
    }

    /// The incidents of one moment in one environment.
    pub(crate) fn incidents(&self, environment: usize, moment: Moment) -> Vec<(Duration, Fault)> {
        let dark = match (moment, self.dark_every) {
            (Moment::Freeze(n), Some(every)) => (n + environment).is_multiple_of(every),
            _ => false,
        };
        let dark = dark.then_some((Duration::ZERO, Fault::DarkExisting));
        let planned = self.faults.iter().filter(|incident| incident.at == moment);
        dark.into_iter()
            .chain(planned.map(|incident| (incident.delay, incident.fault)))
            .collect()
    }
}

/// A moment in the life of an environment, counted from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// `freeze:3`: it has just been stopped for the third time.
    Freeze(usize),
    /// `thaw:3`: it is about to be continued for the third time.
    Thaw(usize),
    /// `invocation:3`: its third invocation begins.
    Invocation(usize),
}

/// A fault of the network at a moment: `reset@freeze:3`, `dark@invocation:2+20ms`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Incident {
    /// The fault.
    pub fault: Fault,
    /// The moment.
    pub at: Moment,
    /// The delay after that moment.
    pub delay: Duration,
}

impl FromStr for Incident {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form =
            "an incident is FAULT@MOMENT[+DELAY]: dark-existing@freeze:3, reset@invocation:2+20ms";
        let (fault, when) = text.split_once('@').ok_or(form)?;
        let (moment, delay) = when.split_once('+').unwrap_or((when, "0ms"));
        let (kind, number) = moment.split_once(':').ok_or(form)?;
        let number = number.parse().map_err(|_| form)?;
        let at = match kind {
            "freeze" => Moment::Freeze(number),
            "thaw" => Moment::Thaw(number),
            "invocation" => Moment::Invocation(number),
            _ => return Err(form.into()),
        };
        Ok(Self {
            fault: fault.parse()?,
            at,
            delay: parse_duration(delay)?,
        })
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, number) = match self.at {
            Moment::Freeze(number) => ("freeze", number),
            Moment::Thaw(number) => ("thaw", number),
            Moment::Invocation(number) => ("invocation", number),
        };
        write!(f, "{}@{kind}:{number}", self.fault)?;
        if self.delay.is_zero() {
            Ok(())
        } else {
            write!(f, "+{:?}", self.delay)
        }
    }
}

/// Reads `1s`, `250ms`, `80us`, `5m` or `0`.
///
/// # Errors
/// When it is none of these.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" if number == "0" => 1.0,
        _ => return Err(format!("`{text}` is no duration: write 250ms, 1s, 5m or 0")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no duration: write 250ms or 1s"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| format!("`{text}`: {error}"))
}
