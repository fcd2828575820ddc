//! A machine for compiled programs that is no kernel: the instructions run in an interpreter, and helpers answer what
//! the test says.
//!
//! The problem: whether `args.x / 3` gives the right value shows only when it runs, and a kernel needs root, and gives
//! its own values. The idea: rbpf runs the instructions; a [`World`] says what helpers answer and which memory there
//! is. Pointers are real addresses, so that loads of the program itself work too.
//!
//! It is stricter than a kernel where that finds faults: a call overwrites r1 to r5 (rbpf by itself leaves them alone),
//! stack and scratch are full of what was there before, and what lies behind scratch is looked at after each run.
//!
//! It is no verifier. Of memory it knows only what is the program's and what the test has put there; whether a pointer
//! may be null, and which loads a kernel allows, is tried on a kernel (tests/verifier.rs, tests/programs.rs). Nor does
//! it run every instruction as it is: [`linked`] says which are replaced, and by what.

mod helpers;
mod linked;
mod record;

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use porthole::compile::{CompileError, compile};
use porthole::ir::MapId;
use porthole::lower::{COUNTER_COUNT, COUNTERS, Counter};
use porthole::plan::Plan;
use porthole::plan::layout::{self, Schema};

use helpers::Run;
pub use record::{Value, decode};

/// The map in which long records are put together.
const SCRATCH: MapId = MapId(2);
/// Bytes behind scratch that nothing may write to.
const GUARD: usize = 512;
/// What memory holds that nobody has written to.
const GARBAGE: u8 = 0xa5;

/// What a program finds when it runs.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub gid: u32,
    pub cpu: u32,
    pub nsecs: u64,
    pub cgroup: u64,
    /// At most 15 bytes.
    pub comm: &'static str,
    /// Address of the running thread's `task_struct`.
    pub task: u64,
    pub memory: Memory,
    /// What the kernel's calls go on with, the innermost first.
    pub calls: &'static [u64],
    /// What the process's do; none for a thread of the kernel's.
    pub calls_of_process: Option<&'static [u64]>,
    /// Whether the ring has no room.
    pub full: bool,
    /// Whether a program at both the entry and the return of a function is called at the latter.
    pub is_return: bool,
    /// What such a program keeps in between.
    pub kept: Rc<Cell<u64>>,
}

/// Memory that programs can read; every other address faults. A clone is the same memory, at the same addresses.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    space: Space,
    /// Where programs find it.
    address: u64,
    bytes: Rc<[u8]>,
}

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Kernel,
    User,
}

/// What a program has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// By [`Counter`], since the machine was made.
    pub counters: [u64; COUNTER_COUNT],
    /// What it sent.
    pub records: Vec<Vec<u8>>,
}

/// The programs of a plan, with their maps.
pub struct Machine {
    programs: Vec<Vec<u8>>,
    counters: Vec<u64>,
    /// Bytes of each program's counters.
    counters_size: usize,
    scratch: Vec<u8>,
    /// Bytes of each program's scratch.
    scratch_size: usize,
    schemas: Vec<Schema>,
}

impl World {
    /// One in which every builtin has another value.
    pub fn new() -> World {
        World {
            pid: 4711,
            tid: 4712,
            uid: 1000,
            gid: 100,
            cpu: 3,
            nsecs: 1 << 50,
            cgroup: 77,
            comm: "cat",
            task: 0,
            memory: Memory::default(),
            calls: &[0xffff_ffff_8100_0112, 0xffff_ffff_8100_0207, 0xffff_ffff_8100_0300],
            calls_of_process: Some(&[0x5600_1010, 0x5600_2020]),
            full: false,
            is_return: false,
            kept: Rc::default(),
        }
    }

    fn kept_at(&self) -> u64 {
        self.kept.as_ptr().expose_provenance() as u64
    }
}

impl Memory {
    /// Adds a piece; its address.
    pub fn add(&mut self, space: Space, bytes: &[u8]) -> u64 {
        let bytes: Rc<[u8]> = bytes.into();
        let address = bytes.as_ptr().expose_provenance() as u64;
        self.pieces.push(Piece { space, address, bytes });
        address
    }

    /// Adds a piece at an address of the test's choice: only helpers can read there, as the machine itself has nothing
    /// at it.
    pub fn add_at(&mut self, space: Space, address: u64, bytes: &[u8]) {
        self.pieces.push(Piece { space, address, bytes: bytes.into() });
    }

    /// The bytes from this address to the end of the piece that it is in.
    fn from(&self, space: Space, address: u64) -> Option<&[u8]> {
        self.pieces.iter().filter(|piece| piece.space == space).find_map(|piece| {
            let at = usize::try_from(address.checked_sub(piece.address)?).ok()?;
            piece.bytes.get(at..).filter(|rest| !rest.is_empty())
        })
    }
}

impl Machine {
    /// Compiles a plan.
    ///
    /// # Errors
    /// As `compile`.
    pub fn new(plan: &Plan) -> Result<Machine, CompileError> {
        let compiled = compile(plan, "plugin", 4096)?;
        let map = |id: MapId| {
            compiled.object.maps.get(id.0 as usize).map_or((0, 0), |m| (m.value_size as usize, m.max_entries as usize))
        };
        let ((counters, programs), (scratch, entries)) = (map(COUNTERS), map(SCRATCH));
        Ok(Machine {
            programs: compiled
                .object
                .functions
                .iter()
                .map(|f| linked::linked(&f.code, &compiled.object.kfuncs))
                .collect(),
            counters: vec![0; counters / 8 * programs],
            counters_size: counters,
            scratch: vec![GARBAGE; scratch * entries + GUARD],
            scratch_size: scratch,
            schemas: plan.schemas.clone(),
        })
    }

    /// Runs a program once.
    ///
    /// # Panics
    /// Where the program does what a kernel would not let it do.
    pub fn run(&mut self, program: usize, context: &[u8], world: &Rc<World>) -> Outcome {
        let mut vm = rbpf::EbpfVmMbuff::new(None).expect("an empty machine");
        vm.set_verifier(|_| Ok(())).expect("no verifier");
        vm.set_program(&self.programs[program]).expect("a program");
        let kfuncs = helpers::KFUNCS.map(|(_, id, kfunc)| (id, kfunc));
        for (id, helper) in helpers::HELPERS.into_iter().chain(kfuncs) {
            vm.register_helper(id, helper).expect("a helper");
        }
        let counters = range(self.counters.as_mut_ptr(), self.counters.len());
        let scratch = range(self.scratch.as_mut_ptr(), self.scratch.len() - GUARD);
        let kept = world.kept_at()..world.kept_at() + 8;
        for allowed in [counters.clone(), scratch.clone(), kept] {
            vm.register_allowed_memory(allowed);
        }
        for piece in world.memory.pieces.iter().filter(|piece| piece.space == Space::Kernel) {
            vm.register_allowed_memory(range(piece.bytes.as_ptr().cast_mut(), piece.bytes.len()));
        }
        // A record lies in a buffer of the kernel's, which goes on behind it.
        let context = &[context, &[GARBAGE; 16]].concat()[..];
        let run = Run {
            world: Rc::clone(world),
            context: range(context.as_ptr().cast_mut(), context.len()),
            maps: [0..0, counters, scratch],
            strides: [0, self.counters_size, self.scratch_size],
            records: Vec::new(),
        };
        let records = run.during(|| {
            vm.execute_program(&[], context).expect("the program runs");
        });

        let guard = &self.scratch[self.scratch.len() - GUARD..];
        assert!(guard.iter().all(|b| *b == GARBAGE), "the program wrote behind its scratch");
        let mut of_program = [0; COUNTER_COUNT];
        of_program.copy_from_slice(&self.counters[program * self.counters_size / 8..][..COUNTER_COUNT]);
        Outcome { counters: of_program, records }
    }

    /// The fields of a record, by the schema that it names.
    ///
    /// # Panics
    /// Where the record breaks a rule of `wit/events.wit`.
    pub fn decode(&self, record: &[u8]) -> Vec<(String, Value)> {
        let schema = &self.schemas[usize::from(record::u16_at(record, layout::SCHEMA) & !layout::WALK_CUT)];
        record::decode(schema, record)
    }
}

impl Outcome {
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
}

/// The addresses of so many values.
fn range<T>(values: *mut T, count: usize) -> Range<u64> {
    let start = values.expose_provenance() as u64;
    start..start + (count * size_of::<T>()) as u64
}
