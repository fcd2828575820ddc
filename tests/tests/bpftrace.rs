//! docs/bpftrace.md: what its table says of bpftrace's tools is so. Each declaration is planned against the running
//! kernel, and loaded.

mod e2e;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use porthole::compile::compile;
use porthole::kernel::KernelFacts;
use porthole::load::{LoadError, load};
use porthole::plan::plan;
use porthole_tests::declaration;

use e2e::is_root;

const RING: u32 = 1 << 16;
/// All that bpftrace brings along.
const TOOLS: usize = 39;
/// Tools whose functions, tracepoints or libraries another kernel or machine may not have, at most.
const MISSING: usize = 15;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bpftrace.md");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Each tool's state and what is missing, from the table.
fn table(page: &str) -> BTreeMap<String, (String, String)> {
    let (_, tools) = page.split_once("\n## The tools\n").unwrap();
    let (tools, _) = tools.split_once("\n## ").unwrap();
    let rows = tools.lines().filter_map(|line| line.strip_prefix("| ")).filter(|row| !row.starts_with("tool |"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').split(" |").map(str::trim).collect();
        (cells[0].to_owned(), (cells[1].to_owned(), cells[3].to_owned()))
    })
    .collect()
}

/// Each tool's declaration.
fn declarations(page: &str) -> BTreeMap<String, String> {
    let (_, sections) = page.split_once("\n## Declarations\n").unwrap();
    let of_section = |section: &str| {
        let (name, body) = section.split_once('\n').unwrap();
        let (_, block) = body.split_once("```declaration\n").unwrap_or_else(|| panic!("{name} has no declaration"));
        (name.trim().to_owned(), block.split_once("```").unwrap().0.to_owned())
    };
    sections.split("\n### ").skip(1).map(of_section).collect()
}

#[test]
fn every_tool_is_told_of() {
    let page = page();
    let (table, declarations) = (table(&page), declarations(&page));
    assert_eq!(table.len(), TOOLS);
    assert!(table.keys().eq(declarations.keys()), "each has a declaration");
    for (tool, (state, missing)) in &table {
        assert!(["all", "events", "part"].contains(&state.as_str()), "{tool}: {state}");
        assert!(state != "part" || !missing.is_empty(), "{tool}: what is missing is said");
    }
    for (tool, text) in &declarations {
        declaration::parse(text).unwrap_or_else(|e| panic!("{tool}: {e}"));
    }
}

/// Another kernel may have put a function into its callers, or be built without it, or without the names of its
/// variables.
fn is_missing_here(place: &str, message: &str) -> bool {
    const PLACES: [&str; 6] =
        ["has no ", "there is no program", "cannot be traced", "made variants", "functions named", "of the module"];
    match place {
        "attach" => PLACES.iter().any(|part| message.contains(part)),
        _ => message == "this kernel does not tell where its variables are",
    }
}

#[test]
fn root_each_declaration_is_accepted_and_loaded() {
    if !is_root() {
        return;
    }
    let facts = KernelFacts::running();
    let (mut faults, mut missing, mut loaded) = (Vec::new(), Vec::new(), 0);
    for (tool, text) in declarations(&page()) {
        let declaration = declaration::parse(&text).unwrap();
        let plan = match plan(&declaration, &facts) {
            Ok(plan) => plan,
            Err(found) if found.0.iter().all(|fault| is_missing_here(&fault.place, &fault.message)) => {
                println!("{tool}: not here: {found}");
                missing.push(tool);
                continue;
            }
            Err(found) => {
                faults.push(format!("{tool}: {found}"));
                continue;
            }
        };
        let compiled = compile(&plan, &tool, RING).unwrap_or_else(|e| panic!("{tool}: {e}"));
        match load(&compiled) {
            Ok(_) => loaded += 1,
            Err(LoadError::NotOffered { .. }) => println!("{tool}: this kernel does not offer it"),
            Err(error) => faults.push(format!("{tool}: {error}")),
        }
    }
    println!("{loaded} loaded, not here: {}", missing.join(", "));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(missing.len() <= MISSING && loaded + missing.len() > TOOLS / 2, "{missing:?}");
}
