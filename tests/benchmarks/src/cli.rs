//! The command line. `run` is the command for people; this is what it calls once everything is built.

use clap::{Parser, Subcommand, ValueEnum};
use std::{fmt::Display, path::PathBuf, process::ExitCode};

use crate::{
    bed::{Bed, Failure, Product, Server},
    measure::{burst, cold, dark, instructions, latency, trace},
    report,
};

/// Measures a function with db-handler against everything that people use instead.
#[derive(Debug, Parser)]
#[command(name = "benchmarks")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures one section and writes its samples.
    Measure {
        #[arg(value_enum)]
        section: Section,
        /// Fewer samples and fewer combinations.
        #[arg(long)]
        quick: bool,
        /// Where the results go.
        #[arg(long)]
        out: PathBuf,
        /// Where `run` has put the programs.
        #[arg(long)]
        target: PathBuf,
    },
    /// Writes the tables and plots of the sections that are there.
    Report {
        /// Where the results are.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Section {
    Postgres,
    Mariadb,
    Burst,
    Dark,
    Cold,
    Trace,
    Instructions,
}

/// Reads the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn Display) -> ExitCode {
    eprintln!("benchmarks: {error}");
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<(), Failure> {
    let (section, quick, out, target) = match command {
        Command::Report { out } => return report::write(&out),
        Command::Measure {
            section,
            quick,
            out,
            target,
        } => (section, quick, out, target),
    };
    let bed = Bed::below(&std::path::absolute(target)?);
    let products: &[Product] = match section {
        Section::Postgres | Section::Cold => &[Product::Postgres],
        Section::Mariadb => &[Product::MariaDb],
        // Half of a quick run's time would go into starting processes.
        Section::Burst if quick => &[Product::Postgres],
        Section::Burst | Section::Dark | Section::Trace | Section::Instructions => {
            &[Product::Postgres, Product::MariaDb]
        }
    };
    let servers: Vec<Server> = products
        .iter()
        .map(|&product| Server::start(product))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for server in &servers {
            server.prepare().await?;
        }
        match section {
            Section::Postgres | Section::Mariadb => {
                latency::run(&servers[0], &bed, &out, quick).await
            }
            Section::Burst => burst::run(&servers, &bed, &out, quick).await,
            Section::Dark => dark::run(&servers, &bed, &out, quick).await,
            Section::Cold => cold::run(&servers[0], &bed, &out, quick).await,
            Section::Trace => trace::run(&servers, &bed, &out).await,
            Section::Instructions => instructions::run(&servers, &bed, &out),
        }
    })
}
