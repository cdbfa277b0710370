//! Tables and plots of what was measured.

mod chart;
mod goals;
mod plots;
mod svg;
mod tables;

use std::{fs, path::Path};

use crate::{
    bed::Failure,
    record::{Builds, Burst, Cold, Dark, Instructions, Latency, Traces, read},
};

/// All sections that are there.
struct Results {
    latencies: Vec<Latency>,
    burst: Option<Burst>,
    dark: Option<Dark>,
    cold: Option<Cold>,
    builds: Option<Builds>,
    traces: Option<Traces>,
    instructions: Option<Instructions>,
}

/// Writes `table.md` and the plots beside the sections.
pub(crate) fn write(folder: &Path) -> Result<(), Failure> {
    let latencies = ["postgres", "mariadb"].map(|section| read(folder, section));
    let results = Results {
        latencies: latencies
            .into_iter()
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?,
        burst: read(folder, "burst")?,
        dark: read(folder, "dark")?,
        cold: read(folder, "cold")?,
        builds: read(folder, "build")?,
        traces: read(folder, "trace")?,
        instructions: read(folder, "instructions")?,
    };
    fs::write(folder.join("table.md"), tables::all(&results))?;
    println!("wrote {}", folder.join("table.md").display());
    for (name, plot) in plots::all(&results) {
        let file = folder.join(format!("{name}.svg"));
        fs::write(&file, plot)?;
        println!("wrote {}", file.display());
    }
    Ok(())
}
