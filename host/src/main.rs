//! The binary `porthole`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
