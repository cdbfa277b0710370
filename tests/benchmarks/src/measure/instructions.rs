//! Instructions, counted by callgrind: unlike times, they are the same on a busy machine.
//!
//! It counts every byte of a `rep movsb`, which is how a large value is moved: a future of several kilobytes that is handed
//! on costs more here than its share of the time. And valgrind has no SHA instructions, so that the hashing of a login counts for more here than it takes on a processor
//! that has them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    bed::{Bed, Failure, Server},
    record::{InstructionCount, Instructions, write},
};

/// What an invocation without database traffic may cost. A tenth above what it was when this was written.
const LIMITS: [(&str, Option<f64>); 5] = [
    ("bare", None),
    ("pool_never", Some(14_000.0)),
    ("pool_always", Some(58_500.0)),
    ("db_never", Some(13_000.0)),
    ("db_always", Some(40_500.0)),
];
/// Few and many invocations: the difference is free of what the start costs.
const INVOCATIONS: [u32; 2] = [200, 1_200];
const OPENINGS: [u32; 2] = [3, 23];
const HOTTEST: usize = 8;

pub(crate) fn run(servers: &[Server], bed: &Bed, folder: &Path) -> Result<(), Failure> {
    let program = bed.programs.join("instructions");
    let work = folder.join("callgrind");
    fs::create_dir_all(&work)?;
    let mut counts = BTreeMap::new();
    let mut too_many = Vec::new();
    for (what, limit) in LIMITS {
        // Never connected to: it only has to be there.
        let url = "postgres://nobody@localhost/nothing";
        let count = count(&program, what, what, url, INVOCATIONS, &work)?;
        println!("{what}: {:.0} instructions", count.instructions);
        if limit.is_some_and(|limit| count.instructions > limit) {
            too_many.push(format!("{what}: {:.0}", count.instructions));
        }
        let limit = limit.unwrap_or_default();
        counts.insert(what.to_owned(), InstructionCount { limit, ..count });
    }
    for server in servers {
        for (tls, link) in [(false, "plain"), (true, "TLS")] {
            let what = format!("open-{}", server.product().name());
            let name = format!("{what}, {link}");
            let count = count(&program, &what, &name, &server.url(tls), OPENINGS, &work)?;
            println!("{name}: {:.0} instructions", count.instructions);
            counts.insert(name, count);
        }
    }
    write(folder, "instructions", &Instructions { counts })?;
    if too_many.is_empty() {
        Ok(())
    } else {
        Err(format!("more instructions than allowed: {}", too_many.join(", ")).into())
    }
}

fn count(
    program: &Path,
    what: &str,
    name: &str,
    url: &str,
    [few, many]: [u32; 2],
    work: &Path,
) -> Result<InstructionCount, Failure> {
    let file = |times: u32| work.join(format!("{}.{times}", name.replace(", ", "-")));
    let mut totals = [0.0; 2];
    for (total, times) in totals.iter_mut().zip([few, many]) {
        *total = callgrind(program, what, url, times, &file(times))?;
    }
    let each = (totals[1] - totals[0]) / f64::from(many - few);
    Ok(InstructionCount {
        instructions: each,
        limit: 0.0,
        hottest: hottest(&file(many))?,
    })
}

/// All instructions of one run.
fn callgrind(
    program: &Path,
    what: &str,
    url: &str,
    times: u32,
    file: &PathBuf,
) -> Result<f64, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args([what, &times.to_string()])
        .env("DATABASE_URL", url)
        .output()
        .map_err(|error| {
            format!("valgrind: {error}; install it with `apt-get install valgrind`")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{what} under valgrind: {}: {said}", output.status).into());
    }
    let profile = fs::read_to_string(file)?;
    let total = profile
        .lines()
        .rev()
        .find_map(|line| {
            line.strip_prefix("totals: ")
                .or(line.strip_prefix("summary: "))
        })
        .and_then(|total| total.trim().parse().ok());
    Ok(total.ok_or_else(|| format!("{} has no total", file.display()))?)
}

/// The functions that most instructions are in, with their share.
fn hottest(file: &Path) -> Result<Vec<(String, f64)>, Failure> {
    let output = Command::new("callgrind_annotate")
        .args(["--auto=no", "--threshold=95"])
        .arg(file)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `1,234,567 (12.34%)  file:function [object]`
    let functions = text.lines().filter_map(|line| {
        let (count, rest) = line.trim_start().split_once(" (")?;
        count.replace(',', "").parse::<u64>().ok()?;
        let (share, rest) = rest.split_once("%)")?;
        let share: f64 = share.trim().parse().ok()?;
        let place = rest.trim().split(" [").next()?;
        let function = place
            .split_once(':')
            .map_or(place, |(_, function)| function);
        (!function.contains("PROGRAM TOTALS")).then(|| (shortened(function), share / 100.0))
    });
    Ok(functions.take(HOTTEST).collect())
}

/// Without the hash that the compiler adds, and without pages of generics.
fn shortened(function: &str) -> String {
    let function = function.split("::h").next().unwrap_or(function);
    let short: String = function.chars().take(80).collect();
    short.replace("'2", "")
}
