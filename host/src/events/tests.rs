use libbpf_rs::{MapType, ObjectBuilder, ProgramInput};
use tokio::time::timeout;

use super::*;
use crate::bpf::Reg::*;
use crate::bpf::{AluOp, Insn, Item, MapIndex, Size, Width, assemble};
use crate::objfile::{self, Function, MapDef, MapKind, Role, write};
use crate::plan::layout::HEADER;

const RINGBUF_OUTPUT: u32 = 130;
/// BPF_RB_NO_WAKEUP of include/uapi/linux/bpf.h.
const NO_WAKEUP: i32 = 1;

#[test]
fn a_batch_counts_by_schema_and_fills_up() {
    let mut record = vec![0; MAX_RECORD as usize];
    record[..4].copy_from_slice(&MAX_RECORD.to_le_bytes());
    record[4..6].copy_from_slice(&2u16.to_le_bytes());
    let mut batch = Batch::default();
    let mut last = 0;
    while last == 0 {
        last = batch.push(&record);
    }
    assert_eq!(last, FULL);
    assert!(batch.records.len() <= MAX_BATCH);
    assert_eq!(batch.by_schema, [0, 0, u64::from(batch.count)]);
}

/// A program that sends a record, and wakes nobody.
fn silent_program() -> libbpf_rs::Object {
    let start = -(HEADER as i16);
    let mut items: Vec<Item> = Vec::new();
    items.extend((0..HEADER as i16).step_by(8).map(|at| Item::from(Insn::store_imm(Size::B8, R10, start + at, 0))));
    items.push(Insn::store_imm(Size::B4, R10, start, HEADER as i32).into());
    items.push(Insn::load_map(R1, MapIndex(0)).into());
    items.push(Insn::mov(Width::W64, R2, R10).into());
    items.push(Insn::alu_imm(AluOp::Add, Width::W64, R2, start.into()).into());
    items.push(Insn::mov_imm(Width::W64, R3, HEADER as i32).into());
    items.push(Insn::mov_imm(Width::W64, R4, NO_WAKEUP).into());
    items.push(Insn::call_helper(RINGBUF_OUTPUT).into());
    items.push(Insn::exit().into());
    let object = objfile::Object {
        license: "GPL".into(),
        functions: vec![Function {
            name: "send".into(),
            role: Role::Entry { section: "raw_tp/sys_enter".into() },
            code: assemble(&items).expect("it is a program"),
        }],
        maps: vec![MapDef {
            name: "events".into(),
            kind: MapKind::RingBuf,
            key_size: 0,
            value_size: 0,
            max_entries: 4096,
            flags: 0,
        }],
        ..objfile::Object::default()
    };
    let bytes = write(&object).expect("it is an object");
    ObjectBuilder::default().open_memory(&bytes).and_then(|open| open.load()).expect("it loads")
}

/// As where the wake-up and the reader's last look have missed one another.
#[tokio::test]
async fn root_records_are_found_without_a_wake_up() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: loading a program needs root");
        return;
    }
    let object = silent_program();
    let map = object.maps().find(|map| map.map_type() == MapType::RingBuf).expect("it has one");
    let mut ring = Ring::new(&map).expect("it can be opened");
    let program = object.progs_mut().next().expect("there is one");
    for _ in 0..3 {
        program.test_run(ProgramInput::default()).expect("it runs");
        timeout(Duration::from_secs(10), ring.wait())
            .await
            .expect("what is there is found")
            .expect("it can be waited for");
        assert_eq!(ring.take(Batch::default()).expect("it can be read").count, 1);
    }
}
