//! `porthole check`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{Cache, Effects};
use porthole::compile::{Compiled, compile};
use porthole::kernel::KernelFacts;
use porthole::load::check_offered;
use porthole::output::escape_terminal;
use porthole::plan::{self, AttachPoint, Plan, Type, Typed};
use porthole::plugin::{Limits, Runtime, RuntimeOptions};
use porthole::run;

#[derive(Args)]
pub struct CheckArguments {
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    effects: Effects,
    /// A plugin: a WebAssembly component
    #[arg(value_name = "PLUGIN.wasm")]
    plugin: PathBuf,
    /// Show the instructions of every program, also of those that are alike
    #[arg(long)]
    all: bool,
    /// Arguments for the plugin
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Attach points that have a line each at most.
const EACH_ON_A_LINE: usize = 3;
/// Bytes of names on a line.
const WIDTH: usize = 90;
/// The ring of `run`'s default: it stands in no instruction.
const RING: u32 = 8 << 20;

pub fn check(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new(&RuntimeOptions { cache: arguments.cache.directory() })?;
    let facts = KernelFacts::running().remembering_in(arguments.cache.directory());
    let name = arguments.plugin.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let declared = super::runtime()?.block_on(run::declare(
        &runtime,
        &arguments.plugin,
        &arguments.args,
        Limits::default(),
        (&facts, &arguments.effects.policy()),
    ));
    let declared = declared.with_context(|| escape_terminal(&name))?;
    let compiled = compile(&declared.plan, &declared.name, RING).with_context(|| escape_terminal(&name))?;
    let mut text = describe(&declared.plan, &facts);
    let listed = |name: &str| declared.plan.kfuncs.iter().any(|used| used.name == name);
    let own: Vec<&str> = compiled.object.kfuncs.iter().map(|k| k.name.as_str()).filter(|name| !listed(name)).collect();
    if !own.is_empty() {
        let _ = writeln!(text, "called by the host itself: {}\n", own.join(", "));
    }
    text.push_str(&instructions(&compiled, &declared.plan, &facts, arguments.all));
    super::print(&text)?;
    // All else holds for other kernels too, so it is no error here.
    if let Err(error) = check_offered(&declared.plan, &facts) {
        super::say(format_args!("note: {}", escape_terminal(&error.to_string())));
    }
    Ok(ExitCode::SUCCESS)
}

/// The programs. Of those of a probe whose bodies read alike and are as long, the first stands for all.
fn instructions(compiled: &Compiled, plan: &Plan, facts: &KernelFacts, all: bool) -> String {
    let mut kinds: Vec<(usize, Vec<String>, usize)> = Vec::new();
    // Of each kind the program that is shown, and how many more there are.
    let mut shown: Vec<(usize, usize)> = Vec::new();
    for (index, (function, of)) in compiled.object.functions.iter().zip(&compiled.programs).enumerate() {
        let kind = (of.probe, body(plan, of.probe, of.point, facts), function.code.insns.len());
        match kinds.iter().position(|known| *known == kind).filter(|_| !all) {
            Some(known) => shown[known].1 += 1,
            None => {
                kinds.push(kind);
                shown.push((index, 0));
            }
        }
    }
    let listing = |(index, more): &(usize, usize)| {
        let function = &compiled.object.functions[*index];
        let mut text = compiled.object.disassemble_one(*index);
        if *more > 0 {
            let _ = writeln!(text, "({more} more programs are like {}; --all shows them)", function.name);
        }
        text
    };
    shown.iter().map(listing).collect::<Vec<_>>().join("\n")
}

/// The plan in words: probes, attach points, steps with their types, and the layout of each record.
fn describe(plan: &Plan, facts: &KernelFacts) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    for (index, probe) in plan.probes.iter().enumerate() {
        line(format!("probe {}", probe.name));
        let mut alike: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        for (point, number) in probe.points.iter().zip(0..) {
            let (body, at) = (body(plan, index, number, facts), format!("{}{}", point.attach, chosen(&point.attach)));
            match alike.iter_mut().find(|(known, _)| *known == body) {
                Some((_, places)) => places.push(at),
                None => alike.push((body, vec![at])),
            }
        }
        for (body, places) in alike {
            self::places(&places).into_iter().chain(body).for_each(&mut line);
        }
    }
    for used in &plan.kfuncs {
        let effect = used.effect.map(|effect| format!("; it {effect}")).unwrap_or_default();
        let here = if used.missing { ", which this kernel does not have: what calls it is absent" } else { "" };
        let claimed =
            if used.claimed { "; what it does is the plugin's claim, and what it changes is not known" } else { "" };
        line(format!("kfunc {}{here}{effect}{claimed}", used.name));
    }
    for schema in &plan.schemas {
        line(format!(
            "record {} ({}), schema {}, {} bytes and its texts",
            schema.name, schema.probe, schema.id, schema.size
        ));
        for field in &schema.fields {
            line(format!("  {:>5}  {}: {}", field.offset, field.name, plan::kind_name(&field.kind)));
        }
    }
    if let Some(tick) = plan.tick {
        line(format!("tick every {} ms", tick.as_millis()));
    }
    out.push('\n');
    out
}

/// The steps of a probe at one attach point, with their types.
fn body(plan: &Plan, probe: usize, point: usize, facts: &KernelFacts) -> Vec<String> {
    let probe = &plan.probes[probe];
    let mut lines = Vec::new();
    for step in &probe.points[point].steps {
        match step {
            plan::PlanStep::Bind { value, .. } => {
                lines.push(format!("    bind {} : {}", one_line(value), shown(&value.node.ty, facts)));
            }
            plan::PlanStep::When(condition) => lines.push(format!("    when {}", one_line(condition))),
            plan::PlanStep::Emit(fields) => {
                let schema = &plan.schemas[usize::from(probe.schema)];
                lines.push(format!("    emit {}", schema.name));
                for (field, layout) in fields.iter().zip(&schema.fields) {
                    let (text, ty) = (one_line(field), shown(&field.node.ty, facts));
                    lines.push(format!("      {} = {text} : {ty}", layout.name));
                }
            }
        }
    }
    lines
}

/// Attach points with the same body: a line for each, or where they are many, what they begin with, and then lines full
/// of the rest.
fn places(all: &[String]) -> Vec<String> {
    if all.len() <= EACH_ON_A_LINE {
        return all.iter().map(|at| format!("  at {at}")).collect();
    }
    let common = all.iter().skip(1).fold(all[0].as_str(), |common, at| {
        let same = common.bytes().zip(at.bytes()).take_while(|(a, b)| a == b).count();
        // A colon is no part of another character.
        &common[..common.as_bytes()[..same].iter().rposition(|b| *b == b':').map_or(0, |colon| colon + 1)]
    });
    let mut lines = vec![format!("  at {} attach points {common}", all.len()).trim_end().to_owned()];
    let mut line = String::new();
    for (at, rest) in all.iter().zip((0..all.len()).rev()) {
        let name = format!(" {}{}", &at[common.len()..], if rest > 0 { "," } else { "" });
        if !line.is_empty() && line.len() + name.len() > WIDTH {
            lines.push(format!("      {}", std::mem::take(&mut line).trim_start()));
        }
        line.push_str(&name);
    }
    lines.push(format!("      {}", line.trim_start()));
    lines
}

/// What is said of an attach point that was chosen on this kernel.
fn chosen(point: &AttachPoint) -> String {
    match point {
        AttachPoint::Function(function) if function.chosen => {
            format!(" (chosen for func:{})", function.name)
        }
        _ => String::new(),
    }
}

/// An expression as the plugin wrote it, on one line.
fn one_line(value: &Typed) -> String {
    escape_terminal(&value.text)
}

fn shown(ty: &Type, facts: &KernelFacts) -> String {
    match ty {
        Type::Integer { bytes, signed } => format!("{}{}", if *signed { "s" } else { "u" }, u32::from(*bytes) * 8),
        Type::Boolean => "boolean".to_owned(),
        Type::Enumeration { names, .. } => names.shown(facts).replace('`', ""),
        Type::Text { max } => format!("text of at most {max} bytes"),
        Type::Symbol(memory) => format!("{memory:?} symbol").to_lowercase(),
        Type::Stack { of, frames } => format!("{of:?} stack of at most {frames} frames").to_lowercase(),
        Type::Bytes { max } => format!("at most {max} bytes"),
        Type::Flags { bytes, .. } => format!("flags of {} bits", u32::from(*bytes) * 8),
        Type::Ip => "IP address".to_owned(),
        Type::Mac => "hardware address".to_owned(),
        Type::Point(plan::PointName::Probe) => "attach point".to_owned(),
        Type::Point(plan::PointName::Function) => "function".to_owned(),
        Type::Pointer { target, origin } => {
            let target = match (target, facts.btf()) {
                (plan::Target::Char, _) => "char".to_owned(),
                (plan::Target::Type(id), Ok(btf)) => btf.c_name(*id),
                (plan::Target::Scalar(ty), _) => format!("{{{}}}", shown(ty, facts)),
                _ => "void".to_owned(),
            };
            format!("{} pointer to {target}", format!("{origin:?}").to_lowercase())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_attach_points_take_few_lines() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(places(&names(&["kprobe:a", "fentry:b"])), ["  at kprobe:a", "  at fentry:b"]);
        let many: Vec<String> = (0..20).map(|n| format!("tracepoint:syscalls:sys_enter_{n}")).collect();
        let lines = places(&many);
        assert_eq!(lines[0], "  at 20 attach points tracepoint:syscalls:");
        assert!(lines[1].starts_with("      sys_enter_0, sys_enter_1, ") && lines.len() == 5, "{lines:#?}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH + 6) && lines[4].ends_with(" sys_enter_19"));
        let apart = names(&["kprobe:a", "fentry:b", "lsm:é", "iter:d"]);
        assert_eq!(places(&apart), ["  at 4 attach points", "      kprobe:a, fentry:b, lsm:é, iter:d"]);
    }
}
