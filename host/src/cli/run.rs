//! `porthole run`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::{Cache, Effects, ignore_closed, say};
use porthole::kernel::KernelFacts;
use porthole::load::{Leftover, check_privileges};
use porthole::output::{self, Format, Output, Renderer, escape_terminal};
use porthole::plugin::{Limits, Runtime, RuntimeOptions};
use porthole::run::{
    self, Account, Asked, Asker, Options, Prepared, RunError, Running, Stop, Stopper, Usage, asker, stopper,
};

#[derive(Args)]
pub struct RunArguments {
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// Write what became of every event, and what the run cost, to this file as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Bytes of each plugin's ring buffer, a power of two from 4K to 1G
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = ring_size)]
    ring_size: u32,
    /// Bytes of memory that each plugin may use
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = memory)]
    memory_limit: usize,
    #[command(flatten)]
    effects: Effects,
    #[command(flatten)]
    cache: Cache,
    /// Plugins: WebAssembly components
    #[arg(required = true, value_name = "PLUGIN.wasm")]
    plugins: Vec<PathBuf>,
    /// Arguments for the plugins, each of which gets all of them
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// What `--report` writes.
#[derive(Serialize)]
struct Report<'a> {
    /// CPU time until all probes were attached.
    startup_cpu_ms: f64,
    startup_wall_ms: f64,
    /// CPU time of the whole run.
    cpu_ms: f64,
    wall_ms: f64,
    peak_rss_kib: u64,
    plugins: &'a [Account],
}

pub fn run(arguments: &RunArguments, begun: Instant) -> anyhow::Result<ExitCode> {
    // Opened before anything is attached: a report that cannot be written is told at once.
    let report = arguments.report.as_deref().map(create).transpose()?;
    let (code, startup, accounts) = super::runtime()?.block_on(trace(arguments, begun))?;
    if let (Some((mut file, path)), Some(startup)) = (report, startup) {
        let now = Usage::since(begun);
        let report = Report {
            startup_cpu_ms: startup.cpu_ms,
            startup_wall_ms: startup.wall_ms,
            cpu_ms: now.cpu_ms,
            wall_ms: now.wall_ms,
            peak_rss_kib: now.peak_rss_kib,
            plugins: &accounts,
        };
        let text = serde_json::to_string_pretty(&report)?;
        writeln!(file, "{text}").with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(code)
}

fn create(path: &Path) -> anyhow::Result<(File, &Path)> {
    let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok((file, path))
}

async fn trace(arguments: &RunArguments, begun: Instant) -> anyhow::Result<(ExitCode, Option<Usage>, Vec<Account>)> {
    let start = boot_time();
    let runtime = Runtime::new(&RuntimeOptions { cache: arguments.cache.directory() })?;
    let Some(running) = attach_all(arguments, &runtime).await else {
        return Ok((ExitCode::FAILURE, None, Vec::new()));
    };
    // From here on a signal ends the run in order. Before, it ends the process, and nothing is lost with that.
    let signals = Signals::new()?;
    let (stopper, stop) = stopper();
    let (asker, asked, answers) = asker();
    let teller = tokio::spawn(tell_accounts(signal(SignalKind::user_defined1())?, asker, answers));
    let startup = Usage::since(begun);
    let points: usize = running.iter().map(Running::attach_points).sum();
    say(format_args!(
        "Attached to {points} attach point{} for {} plugin{}.",
        if points == 1 { "" } else { "s" },
        running.len(),
        if running.len() == 1 { "" } else { "s" }
    ));

    let (output, writer) = output::writer(std::io::stdout());
    let ender = tokio::spawn(end(signals, arguments.duration, stopper.clone()));
    let (accounts, leftover, mut failed) = feed_all(running, arguments.format, output, &stop, &asked, start).await;
    // Before the writer is waited for: some kernels keep a program as long as its event, and a reader may take for
    // ever.
    leftover.leave_behind();
    let written = tokio::task::spawn_blocking(move || writer.join()).await?;
    // Not before: what is left may be more than its reader ever takes.
    ender.abort();
    teller.abort();
    let written = written.unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")));
    // A reader that has gone away is not an error of ours: `porthole … | head` is fine.
    if let Err(error) = written.or_else(ignore_closed) {
        failed = true;
        say(format_args!("error: stdout cannot be written: {error}"));
    }
    print_accounts(&accounts);
    Ok((if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }, Some(startup), accounts))
}

/// All plugins attached; none where any of them failed, which has then been told.
async fn attach_all(arguments: &RunArguments, runtime: &Runtime) -> Option<Vec<Running>> {
    let limits = Limits { memory: arguments.memory_limit, ..Limits::default() };
    let options = Options { limits, ring: arguments.ring_size };
    let facts = KernelFacts::running().remembering_in(arguments.cache.directory());
    let policy = arguments.effects.policy();
    let mut prepared: Vec<Prepared> = Vec::new();
    let mut failed = false;
    for path in &arguments.plugins {
        let result = run::declare(runtime, path, &arguments.args, limits, (&facts, &policy)).await;
        match result.and_then(|declared| declared.prepare(&options)) {
            Ok(plugin) => prepared.push(plugin),
            Err(error) => {
                failed = true;
                tell(&stem(path), &error);
                // Without privileges the declaration may fail for want of facts, before it comes to loading: all that
                // is missing is told at once.
                if let (RunError::Declaration(_), Err(error)) = (&error, check_privileges()) {
                    tell(&stem(path), &error.into());
                }
            }
        }
    }
    if failed {
        return None;
    }
    drop(facts);
    let mut running = Vec::new();
    for plugin in prepared {
        let name = plugin.name().to_owned();
        match plugin.attach() {
            Ok(plugin) => running.push(plugin),
            Err(error) => {
                tell(&name, &error);
                return None;
            }
        }
    }
    Some(running)
}

/// Runs every plugin to its end; whether any failed.
async fn feed_all(
    running: Vec<Running>,
    format: Format,
    output: Output,
    stop: &Stop,
    asked: &Asked,
    start: u64,
) -> (Vec<Account>, Leftover, bool) {
    let several = running.len() > 1;
    let mut tasks = JoinSet::new();
    for (i, plugin) in running.into_iter().enumerate() {
        let renderer = Renderer::new(plugin.name(), format, plugin.schemas().to_vec(), several, start);
        let (output, stop, asked) = (output.clone(), stop.clone(), asked.clone());
        tasks.spawn(async move { (i, plugin.run(renderer, output, stop, asked).await) });
    }
    drop(output);
    let (mut accounts, mut leftover) = (Vec::new(), Leftover::default());
    let mut failed = false;
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((i, (account, left, result))) => {
                leftover.add(left);
                if let Err(error) = result {
                    failed = true;
                    tell(&account.plugin, &error);
                }
                accounts.push((i, account));
            }
            Err(error) => {
                failed = true;
                say(format_args!("error: a plugin's task ended early: {error}"));
            }
        }
    }
    accounts.sort_by_key(|(i, _)| *i);
    (accounts.into_iter().map(|(_, account)| account).collect(), leftover, failed)
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Ends the run at the first signal or when the time is over, and the process at the second signal: then what is
/// attached goes with the descriptors.
async fn end(mut signals: Signals, duration: Option<Duration>, stopper: Stopper) {
    tokio::select! {
        () = signals.next() => {}
        () = tokio::time::sleep(duration.unwrap_or(Duration::MAX)) => {}
    }
    stopper.stop();
    signals.next().await;
    say("error: ended by a second signal before all events were delivered");
    std::process::exit(1);
}

/// Prints each plugin's account at each SIGUSR1.
async fn tell_accounts(mut signals: Signal, asker: Asker, mut answers: UnboundedReceiver<Account>) {
    loop {
        tokio::select! {
            _ = signals.recv() => asker.ask(),
            Some(account) = answers.recv() => print_accounts(&[account]),
        }
    }
}

fn tell(plugin: &str, error: &RunError) {
    say(format_args!("error: {}: {error}", escape_terminal(plugin)));
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn print_accounts(accounts: &[Account]) {
    let mut rows = vec![
        ["PLUGIN", "PROBE", "HITS", "FILTERED", "EMITTED", "DELIVERED", "LOST", "MISSED"].map(str::to_owned).to_vec(),
    ];
    // Most runs meet none, and then nobody need wonder what they are.
    let some_faults = accounts.iter().flat_map(|account| &account.probes).any(|p| p.faults > 0);
    rows[0].extend(some_faults.then(|| "FAULTS".to_owned()));
    for account in accounts {
        for p in &account.probes {
            let faults = some_faults.then_some(p.faults);
            let numbers = [p.hits, p.filtered, p.emitted, p.delivered, p.lost, p.missed].into_iter().chain(faults);
            let names = [escape_terminal(&account.plugin), p.probe.clone()];
            rows.push(names.into_iter().chain(numbers.map(|n| n.to_string())).collect());
        }
    }
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(c, (cell, width))| if c < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        say(cells.collect::<Vec<_>>().join("  "));
    }
}

/// Nanoseconds since boot, as events have it.
fn boot_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero()).ok_or_else(|| "must be more than 0".to_owned())
}

/// A number of bytes, with K, M or G for the binary multiples.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']) {
        digits if digits.len() == text.len() => (digits, 0),
        digits if digits.len() + 1 == text.len() => match text.as_bytes()[digits.len()].to_ascii_uppercase() {
            b'K' => (digits, 10),
            b'M' => (digits, 20),
            _ => (digits, 30),
        },
        _ => return Err("not a number of bytes".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number of bytes; write it as 65536, 64K or 16M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

fn ring_size(text: &str) -> Result<u32, String> {
    let size = bytes(text)?;
    let fits = size.is_power_of_two() && (4 << 10..=1 << 30).contains(&size);
    u32::try_from(size).ok().filter(|_| fits).ok_or_else(|| "must be a power of two from 4K to 1G".to_owned())
}

fn memory(text: &str) -> Result<usize, String> {
    let size = bytes(text)?;
    // The address space of a plugin ends there.
    usize::try_from(size)
        .ok()
        .filter(|n| (64 << 10..=4 << 30).contains(n))
        .ok_or_else(|| "must be from 64K to 4G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(ring_size("16M"), Ok(16 << 20));
        assert_eq!(ring_size("4096"), Ok(4096));
        for bad in ["", "M", "3M", "2K", "16MB", "-1", "2G", "1e6"] {
            assert!(ring_size(bad).is_err(), "{bad}");
        }
        assert_eq!(memory("64m"), Ok(64 << 20));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("0").is_err() && seconds("x").is_err() && seconds("-1").is_err());
    }
}
