//! The command behind `run`; see the library.

fn main() -> std::process::ExitCode {
    benchmarks::cli::main()
}
