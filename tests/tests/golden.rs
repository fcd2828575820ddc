//! Golden files: from declarations to records, IR and instructions, and to messages.
//!
//! Below `golden/compile` each input is a declaration (see [`porthole_tests::declaration`]) that is accepted: what
//! follows it is the layout of its records, its IR, and its disassembly. Where its first line is `show` and the names
//! of some of these, only they follow, and without the frame that all programs have (what counts, and what sends the
//! record), unless the line says `whole` too.
//!
//! Below `golden/refuse` each is refused: what follows is the whole message. Where its first line is `without` and the
//! names of features, it is refused by a kernel that does not offer these.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use porthole::compile::compile;
use porthole::kernel::KernelFacts;
use porthole::load::check_offered;
use porthole::lower::lower;
use porthole::plan::layout::Schema;
use porthole::plan::{kind_name, plan};
use porthole::{declare::Declaration, ir};
use porthole_tests::golden::{self, Section};
use porthole_tests::{declaration, facts};

/// Bytes of the ring buffer.
const RING: u32 = 1 << 20;

#[test]
fn compiled() {
    let facts = facts::recorded();
    golden::check(&directory("compile"), |input| {
        let (show, input) = match input.strip_prefix("show ").and_then(|rest| rest.split_once('\n')) {
            Some((show, input)) => (show, input),
            None => ("whole layout ir disassembly", input),
        };
        let shown: Vec<&str> = show.split(' ').collect();
        let mut sections = compiled_sections(&facts, &read(input));
        sections.retain(|s| shown.contains(&s.name));
        assert_eq!(sections.len(), shown.iter().filter(|name| **name != "whole").count(), "show {show}");
        if !shown.contains(&"whole") {
            sections.iter_mut().filter(|s| s.name != "layout").for_each(|s| s.text = without_frame(&s.text));
        }
        sections
    });
}

#[test]
fn refused() {
    let facts = facts::recorded();
    golden::check(&directory("refuse"), |input| {
        vec![match input.strip_prefix("without ").and_then(|rest| rest.split_once('\n')) {
            Some((features, input)) => {
                refused_section(&facts::lacking(features, Path::new(env!("CARGO_TARGET_TMPDIR"))), &read(input))
            }
            None => refused_section(&facts, &read(input)),
        }]
    });
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn read(input: &str) -> Declaration {
    declaration::parse(input).unwrap_or_else(|e| panic!("{e}\n{input}"))
}

fn compiled_sections(facts: &KernelFacts, declaration: &Declaration) -> Vec<Section> {
    let plan = plan(declaration, facts).unwrap_or_else(|e| panic!("{e}"));
    let layout = plan.schemas.iter().map(layout).collect::<Vec<_>>().join("\n");
    let ir = lower(&plan, "plugin", RING).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&plan, "plugin", RING).unwrap_or_else(|e| panic!("{e}"));
    let disassembly = compiled.object.disassemble();
    vec![
        Section { name: "layout", text: layout },
        Section { name: "ir", text: ir::text(&ir.module) },
        Section { name: "disassembly", text: disassembly },
    ]
}

/// The parts whose reason is an expression, with the labels in front of them.
fn without_frame(text: &str) -> String {
    let (mut out, mut labels, mut kept) = (String::new(), String::new(), false);
    for line in text.lines() {
        if let Some(reason) = line.trim_start().strip_prefix("; ") {
            kept = is_of_expression(reason);
        } else if line.ends_with(':') && !line.contains(' ') {
            let _ = writeln!(labels, "{line}");
            continue;
        }
        if kept {
            let _ = writeln!(out, "{labels}{line}");
        }
        labels.clear();
    }
    out
}

/// Whether a reason (`PLUGIN:PROBE:STEP text`) names an expression: step 0 is the attach point.
fn is_of_expression(reason: &str) -> bool {
    let (place, text) = reason.split_once(' ').unwrap_or((reason, ""));
    place.split(':').nth(2) != Some("0") && !text.starts_with("emit ")
}

/// A line for each part of a record.
fn layout(schema: &Schema) -> String {
    let mut text = format!("{}: event {} of probe {}, {} bytes\n", schema.id, schema.name, schema.probe, schema.size);
    for field in &schema.fields {
        let _ = writeln!(text, "{:>5}  {}: {}", field.offset, field.name, kind_name(&field.kind));
    }
    text
}

fn refused_section(facts: &KernelFacts, declaration: &Declaration) -> Section {
    let text = match plan(declaration, facts) {
        Err(diagnostics) => diagnostics.to_string(),
        Ok(plan) => match compile(&plan, "plugin", RING) {
            Err(error) => error.to_string(),
            Ok(_) => match check_offered(&plan, facts) {
                Err(error) => error.to_string(),
                Ok(()) => "(accepted)".to_owned(),
            },
        },
    };
    Section { name: "refused", text }
}
