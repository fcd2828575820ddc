//! The command line: one file for each subcommand.

mod check;
mod doctor;
mod kfuncs;
mod list;
mod run;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use porthole::cache::default_cache_dir;
use porthole::plan::Policy;

/// Trace with WebAssembly plugins.
#[derive(Parser)]
#[command(name = "porthole", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run plugins until they finish, the time is over, or Ctrl-C
    Run(run::RunArguments),
    /// Show what a plugin declares and what becomes of it; loads nothing
    Check(check::CheckArguments),
    /// List the attach points that there are, and what they pass
    List(list::ListArguments),
    /// List the kfuncs (functions of the kernel that programs may call), and what may call them
    Kfuncs(kfuncs::KfuncsArguments),
    /// Tell what this kernel and these privileges allow
    Doctor,
}

/// Where compiled components are kept.
#[derive(Args)]
struct Cache {
    /// Keep compiled components here [default: ~/.cache/porthole]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache_dir: Option<PathBuf>,
    /// Compile every component anew, and keep nothing
    #[arg(long)]
    no_cache: bool,
}

/// What plugins may change.
#[derive(Args)]
struct Effects {
    /// Let plugins call kfuncs that change what is not their own: send signals, write attributes of files, …
    #[arg(long = "allow-effects")]
    allowed: bool,
}

impl Effects {
    fn policy(&self) -> Policy {
        Policy { effects: self.allowed }
    }
}

impl Cache {
    fn directory(&self) -> Option<PathBuf> {
        if self.no_cache { None } else { self.cache_dir.clone().or_else(default_cache_dir) }
    }
}

/// Does what the command line says. Exit codes: 0; 1 where a plugin or the run failed; 2 for wrong usage.
pub fn main() -> ExitCode {
    let begun = std::time::Instant::now();
    // clap itself exits with 2 on wrong usage.
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("PORTHOLE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .without_time()
        .log_internal_errors(false)
        .init();
    let result = match arguments.command {
        Command::Run(arguments) => run::run(&arguments, begun),
        Command::Check(arguments) => check::check(&arguments),
        Command::List(arguments) => list::list(&arguments),
        Command::Kfuncs(arguments) => kfuncs::kfuncs(&arguments),
        Command::Doctor => doctor::doctor(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            fail(&error);
            ExitCode::FAILURE
        }
    }
}

/// Tells an error, with its causes behind it.
fn fail(error: &anyhow::Error) {
    say(format_args!("error: {error:#}"));
}

/// A line on stderr. Where that is closed nobody is there to be told; `eprintln!` would panic.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints to stdout. Where its reader has gone away nobody wants to read on, as in `porthole check … | head`; any other
/// failure is an error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    printed.or_else(ignore_closed).context("stdout cannot be written")
}

fn ignore_closed(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// A tokio runtime of few threads: plugins are tasks, and each runs one handler at a time.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
