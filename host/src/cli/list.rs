//! `porthole list`.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{ignore_closed, say};
use porthole::kernel::KernelFacts;
use porthole::list::{Argument, Arguments, list as find};
use porthole::output::{escape_terminal, json_line};

#[derive(Args)]
pub struct ListArguments {
    /// Print the arguments of each, as expressions write them, with their types
    #[arg(short, long)]
    verbose: bool,
    /// Print each as a JSON object on a line of its own
    #[arg(long)]
    json: bool,
    /// Those to print: a whole attach point, or a part of one, with wildcards and lists as declarations have them
    ///
    /// Without a colon it is looked for anywhere: `sched`. With one it is a whole attach point: `tracepoint:sched:*`,
    /// `kprobe:vfs_*`. Functions are listed as `func` unless another kind is named. Those of a program or library are
    /// listed by its name: `uprobe:libc:mem*`, `usdt:/usr/bin/bash:*`
    pattern: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Line<'a> {
    attach: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Vec<Passed<'a>>>,
}

#[derive(Serialize)]
struct Passed<'a> {
    expression: &'a str,
    #[serde(rename = "type")]
    c_type: &'a str,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
}

impl<'a> Passed<'a> {
    fn new(argument: &'a Argument) -> Passed<'a> {
        let Argument { expression, c_type, refused } = argument;
        Passed { expression, c_type, refused: refused.as_deref() }
    }
}

pub fn list(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let facts = KernelFacts::running();
    let listing = find(arguments.pattern.as_deref(), &facts)?;
    for note in &listing.notes {
        say(format_args!("note: {}", escape_terminal(note)));
    }
    if let (Some(pattern), true) = (&arguments.pattern, listing.points.is_empty()) {
        anyhow::bail!("no attach point matches `{}`", escape_terminal(pattern));
    }
    let mut told = Arguments::new(&facts);
    let mut stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut line = Vec::new();
    let printed = listing.points.iter().try_for_each(|attach| {
        let passed = arguments.verbose.then(|| told.of(attach).unwrap_or_default());
        line.clear();
        if arguments.json {
            as_json(attach, passed.as_deref(), &mut line)
        } else {
            as_text(attach, passed.as_deref(), &mut line)
        }
        stdout.write_all(&line)
    });
    let printed = printed.and_then(|()| stdout.flush());
    // What it still holds after a failure nobody would read.
    let _ = stdout.into_parts();
    printed.or_else(ignore_closed).context("stdout cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(attach: &str, passed: Option<&[Argument]>, to: &mut Vec<u8>) {
    to.extend_from_slice(escape_terminal(attach).as_bytes());
    to.push(b'\n');
    for Argument { expression, c_type, refused } in passed.unwrap_or_default() {
        let text = match refused {
            None => format!("    {expression} : {c_type}"),
            Some(why) => format!("    # {expression} : {c_type}; it cannot be read: {why}"),
        };
        to.extend_from_slice(escape_terminal(&text).as_bytes());
        to.push(b'\n');
    }
}

fn as_json(attach: &str, passed: Option<&[Argument]>, to: &mut Vec<u8>) {
    let kind = attach.split(':').next().unwrap_or_default();
    let args = passed.map(|passed| passed.iter().map(Passed::new).collect());
    json_line(&Line { attach, kind, args }, to);
}
