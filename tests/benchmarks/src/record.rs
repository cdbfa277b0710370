//! What a run leaves behind: one JSON file for each section, with every sample.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    bed::{Failure, Link, Product},
    contender::Kind,
};

/// All latencies of one server.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) product: Product,
    pub(crate) quick: bool,
    pub(crate) races: Vec<Race>,
}

/// Contenders of one kind taking turns over one link, with one amount of work.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Race {
    pub(crate) link: Link,
    pub(crate) kind: Kind,
    pub(crate) queries: u32,
    /// By contender; the n-th sample of each belongs to the same sweep.
    pub(crate) samples: BTreeMap<String, Samples>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Samples {
    /// From the hand-over of the event to the answer.
    pub(crate) caller_ms: Vec<f64>,
    /// From the answer to the next poll: billed, but nobody waits.
    pub(crate) after_ms: Vec<f64>,
    /// How long the function was frozen before.
    pub(crate) frozen_ms: Vec<f64>,
    /// What failed, in words; such an invocation has no sample above.
    pub(crate) failures: Vec<String>,
}

/// Many environments at once.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Burst {
    pub(crate) rounds: usize,
    pub(crate) connections: u32,
    pub(crate) hold_ms: f64,
    pub(crate) runs: Vec<BurstRun>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct BurstRun {
    pub(crate) product: Product,
    pub(crate) contender: String,
    pub(crate) environments: usize,
    pub(crate) queries: u32,
    /// Connections that were open when all were frozen after a round.
    pub(crate) kept: Vec<usize>,
    pub(crate) caller_ms: Vec<f64>,
    /// How long those waited that were not answered.
    pub(crate) failed_ms: Vec<f64>,
    /// The kinds of failure, and how often each.
    pub(crate) failures: BTreeMap<String, usize>,
}

/// Connections that are dead after a freeze, and nobody says so.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Dark {
    pub(crate) timeout_ms: f64,
    pub(crate) runs: Vec<DarkRun>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct DarkRun {
    pub(crate) product: Product,
    pub(crate) contender: String,
    /// How long the function was frozen while the network forgot its connection.
    pub(crate) frozen_ms: f64,
    /// The invocation after that, once for each round.
    pub(crate) dead: Vec<Outcome>,
    /// And the one after it.
    pub(crate) next: Vec<Outcome>,
    /// How often it had to be started anew, because it answered nothing any more.
    pub(crate) restarts: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Outcome {
    pub(crate) caller_ms: f64,
    pub(crate) answered: bool,
    pub(crate) words: String,
}

/// Cold starts.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Cold {
    pub(crate) programs: BTreeMap<String, ColdStarts>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct ColdStarts {
    /// The program's file; none for Node.
    pub(crate) bytes: Option<u64>,
    /// From the start of the process to its first poll.
    pub(crate) ready_ms: Vec<f64>,
    /// From there: the first event to its answer, with the first connection.
    pub(crate) first_ms: Vec<f64>,
}

/// Clean builds, as `run` times them.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Builds {
    pub(crate) builds: Vec<Build>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Build {
    pub(crate) program: String,
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    pub(crate) crates: u32,
}

/// What goes over the wire in one invocation with one query.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Traces {
    pub(crate) rtt_ms: f64,
    pub(crate) traces: Vec<Trace>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Trace {
    pub(crate) product: Product,
    pub(crate) contender: String,
    pub(crate) tls: bool,
    pub(crate) cold: bool,
    /// What the caller waited.
    pub(crate) caller_ms: f64,
    pub(crate) opened: usize,
    /// Round trips, that of TCP included, which the caller waited for.
    pub(crate) round_trips: usize,
    /// Round trips after the answer.
    pub(crate) round_trips_after: usize,
    /// As counted by the sandbox's own proxy.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// From the hand-over of the event to the first byte on the wire.
    pub(crate) before_ms: f64,
    /// From the last byte that the caller waited for to the answer.
    pub(crate) rest_ms: f64,
    pub(crate) steps: Vec<Step>,
}

/// One exchange: what the function says, and what the server says to that.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Step {
    pub(crate) connection: usize,
    pub(crate) says: String,
    pub(crate) sent: usize,
    pub(crate) answer: String,
    pub(crate) received: usize,
    /// What the function took, without the round trip, since the server's last word.
    pub(crate) function_ms: f64,
    /// From the function's first word to its last: what its kernel held back until an ACK came.
    pub(crate) held_ms: f64,
    /// What the server took from there to its last word.
    pub(crate) server_ms: f64,
    /// Whether the caller still waited.
    pub(crate) awaited: bool,
}

/// Instructions of one invocation, counted by callgrind.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Instructions {
    pub(crate) counts: BTreeMap<String, InstructionCount>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct InstructionCount {
    pub(crate) instructions: f64,
    pub(crate) limit: f64,
    /// Where they go: the crates and functions with most of them.
    #[serde(default)]
    pub(crate) hottest: Vec<(String, f64)>,
}

/// Writes a section.
pub(crate) fn write<T: Serialize>(folder: &Path, section: &str, record: &T) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let file = folder.join(format!("{section}.json"));
    // Beside it first: an interrupted run must not leave half a section that looks done.
    let unfinished = folder.join(format!("{section}.json.unfinished"));
    fs::write(&unfinished, serde_json::to_vec(record)?)?;
    fs::rename(&unfinished, &file)?;
    println!("wrote {}", file.display());
    Ok(())
}

/// Reads a section; none when it was not measured.
pub(crate) fn read<T: DeserializeOwned>(
    folder: &Path,
    section: &str,
) -> Result<Option<T>, Failure> {
    let file = folder.join(format!("{section}.json"));
    if !file.exists() {
        return Ok(None);
    }
    let record = serde_json::from_slice(&fs::read(&file)?)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Some(record))
}
