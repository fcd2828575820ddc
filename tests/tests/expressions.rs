//! Expressions have the values that docs/expressions.md says they have: through the whole compiler, run in a machine
//! that is no kernel.
//!
//! `values`, `texts` and `bytes` are tables, and `faults` is one of reads that fail; `memory` is of the kernel's
//! variables, `paths` of those of files, and `sessions` of programs that are called twice. `random` compares random
//! expressions with an evaluator that shares nothing with the compiler but the syntax tree, and `in_kernel` does so in
//! the kernel. `hostile` feeds what is no declaration at all, and `mutations` what was one. `documented` tries each
//! example of the documentation.

#[path = "expressions/bytes.rs"]
mod bytes;
#[path = "expressions/documented.rs"]
mod documented;
#[path = "expressions/faults.rs"]
mod faults;
#[path = "expressions/hostile.rs"]
mod hostile;
#[path = "expressions/in_kernel.rs"]
mod in_kernel;
#[path = "expressions/memory.rs"]
mod memory;
#[path = "expressions/mutations.rs"]
mod mutations;
#[path = "expressions/paths.rs"]
mod paths;
#[path = "expressions/random.rs"]
mod random;
#[path = "expressions/reference.rs"]
mod reference;
#[path = "expressions/sessions.rs"]
mod sessions;
#[path = "expressions/symbols.rs"]
mod symbols;
#[path = "expressions/texts.rs"]
mod texts;
#[path = "expressions/values.rs"]
mod values;

use std::path::Path;
use std::rc::Rc;
use std::sync::LazyLock;

use porthole::kernel::{KernelFacts, Kind};
use porthole::plan::plan;
use porthole_tests::machine::{Machine, Value, World};
use porthole_tests::{declaration, facts};

/// A kernel with the made tracepoints.
static FACTS: LazyLock<KernelFacts> =
    LazyLock::new(|| facts::made(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("made-kernel")));
/// The made tracepoint with fields of every kind.
const MADE: &str = "tracepoint:made:all";
/// The made system call.
const CALL: &str = "tracepoint:syscalls:sys_enter_made";

/// The values of expressions at an attach point, in one record.
fn evaluate(facts: &KernelFacts, attach: &str, expressions: &[&str], context: &[u8], world: &Rc<World>) -> Vec<Value> {
    let names: Vec<String> = (0..expressions.len()).map(|n| format!("f{n}")).collect();
    let fields = names.iter().map(String::as_str).zip(expressions.iter().copied());
    let plan = plan(&declaration::of_fields(attach, fields), facts).unwrap_or_else(|e| panic!("{e}"));
    let mut machine = Machine::new(&plan).unwrap_or_else(|e| panic!("{e}"));
    let outcome = machine.run(0, context, world);
    let [record] = &outcome.records[..] else { panic!("{outcome:?}") };
    machine.decode(record).into_iter().map(|(_, value)| value).collect()
}

/// Bytes of one of the kernel's structures, in which these members (`pid`, `se.load.weight`) are these bytes, and all
/// else is 0. A bit field of one bit is set.
fn structure(name: &str, members: &[(&str, &[u8])]) -> Vec<u8> {
    let btf = FACTS.btf().unwrap();
    let root = btf.structure(name).unwrap();
    let Kind::Struct { bytes, .. } = btf.kind(root) else { panic!("struct {name}") };
    let mut object = vec![0; bytes as usize];
    for (path, bytes) in members {
        let (mut id, mut at, mut bits) = (root, 0, None);
        for name in path.split('.') {
            let member = btf.member(id, name).unwrap_or_else(|| panic!("{path}: no {name}"));
            (id, at, bits) =
                (btf.strip(member.ty).id, at + member.bit_offset as usize, member.bit_size.filter(|n| *n > 0));
        }
        match bits {
            Some(1) => object[at / 8] |= 1 << (at % 8),
            _ => put(&mut object, at / 8, bytes),
        }
    }
    object
}

/// Writes a number's bytes into a record.
fn put(record: &mut [u8], offset: usize, bytes: &[u8]) {
    record[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Writes a number into a field of the made tracepoint.
fn set(record: &mut [u8], field: &str, value: i64) {
    let field = facts::FIELDS.iter().find(|f| f.name == field).unwrap_or_else(|| panic!("no field {field}"));
    put(record, field.offset, &value.to_le_bytes()[..field.size]);
}
