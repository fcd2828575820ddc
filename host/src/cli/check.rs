//! `porthole check`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::Cache;
use porthole::compile::compile;
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
    /// A plugin: a WebAssembly component
    #[arg(value_name = "PLUGIN.wasm")]
    plugin: PathBuf,
    /// Arguments for the plugin
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// The ring of `run`'s default: it stands in no instruction.
const RING: u32 = 8 << 20;

pub fn check(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new(&RuntimeOptions { cache: arguments.cache.directory() })?;
    let facts = KernelFacts::running();
    let name = arguments.plugin.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let declared = super::runtime()?.block_on(run::declare(
        &runtime,
        &arguments.plugin,
        &arguments.args,
        Limits::default(),
        &facts,
    ));
    let declared = declared.with_context(|| escape_terminal(&name))?;
    let compiled = compile(&declared.plan, &declared.name, RING).with_context(|| escape_terminal(&name))?;
    let mut text = describe(&declared.plan, &facts);
    text.push_str(&compiled.object.disassemble());
    super::print(&text)?;
    // All else holds for other kernels too, so it is no error here.
    if let Err(error) = check_offered(&declared.plan, &facts) {
        super::say(format_args!("note: {}", escape_terminal(&error.to_string())));
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan in words: probes, attach points, steps with their types, and the layout of each record.
fn describe(plan: &Plan, facts: &KernelFacts) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    for probe in &plan.probes {
        line(format!("probe {}", probe.name));
        for point in &probe.points {
            line(format!("  at {}{}", point.attach, chosen(&point.attach)));
            for step in &point.steps {
                match step {
                    plan::PlanStep::Bind { value, .. } => {
                        line(format!("    bind {} : {}", one_line(value), shown(&value.node.ty, facts)))
                    }
                    plan::PlanStep::When(condition) => line(format!("    when {}", one_line(condition))),
                    plan::PlanStep::Emit(fields) => {
                        let schema = &plan.schemas[usize::from(probe.schema)];
                        line(format!("    emit {}", schema.name));
                        for (field, layout) in fields.iter().zip(&schema.fields) {
                            line(format!(
                                "      {} = {} : {}",
                                layout.name,
                                one_line(field),
                                shown(&field.node.ty, facts)
                            ));
                        }
                    }
                }
            }
        }
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
