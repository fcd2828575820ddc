//! What libbpf says while it works, and the verifier's log in it.

use std::cell::RefCell;

use libbpf_rs::{PrintLevel, set_print};

/// Lines of the verifier's log shown at most: its end is where it says what it refuses.
const SHOWN: usize = 40;
/// What stands in front of the verifier's log, and behind it (libbpf.c: bpf_object_load_prog).
const BEGIN: &str = "-- BEGIN PROG LOAD LOG --";
const END: &str = "-- END PROG LOAD LOG --";

thread_local! {
    /// What libbpf has said in this thread since `capture` began; none outside of it.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A log of the verifier's that ends in a refusal.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifierLog<'a> {
    /// The program's name in the object.
    pub program: &'a str,
    /// The whole log.
    pub text: &'a str,
}

/// Runs `work` and returns with it what libbpf said meanwhile, in this thread.
pub fn capture<T>(work: impl FnOnce() -> T) -> (T, String) {
    set_print(Some((PrintLevel::Info, heard)));
    CAPTURED.set(Some(String::new()));
    let result = work();
    (result, CAPTURED.take().unwrap_or_default())
}

/// libbpf calls this in the thread that called libbpf.
fn heard(level: PrintLevel, text: String) {
    let captured = CAPTURED.with_borrow_mut(|captured| captured.as_mut().map(|c| c.push_str(&text)));
    if captured.is_none() {
        tracing::debug!("libbpf {level:?}: {}", text.trim_end());
    }
}

/// The last lines.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

impl<'a> VerifierLog<'a> {
    /// The last one in what libbpf said; none where the verifier has not refused a program.
    pub fn find(said: &'a str) -> Option<VerifierLog<'a>> {
        let begin = said.rfind(BEGIN)?;
        // `libbpf: prog 'opens_0': -- BEGIN PROG LOAD LOG --`
        let named = said[..begin].trim_end().strip_suffix("':")?;
        let (_, program) = named.rsplit_once('\'')?;
        let text = said[begin + BEGIN.len()..].trim_start_matches('\n');
        let end = text.rfind(END).and_then(|end| text[..end].rfind('\n')).unwrap_or(text.len());
        Some(VerifierLog { program, text: &text[..end] })
    }

    /// The slot of the instruction that was refused: the last that was looked at, or, of what is found without a walk,
    /// the one that is named.
    pub fn slot(&self) -> Option<usize> {
        let mut lines = self.text.lines().rev();
        lines.clone().find_map(visited).or_else(|| lines.find_map(named))
    }

    /// The text of the last line of source in the log, and from 6.8 on the file and the line that it is from
    /// (`opens:enter:1`).
    pub fn source(&self) -> Option<(&'a str, Option<&'a str>)> {
        let line = self.text.lines().rev().find_map(|line| line.strip_prefix("; "))?;
        Some(match line.rsplit_once(" @ ") {
            Some((text, place)) => (text, Some(place)),
            None => (line, None),
        })
    }
}

/// `12: (79) r0 = *(u64 *)(r1 +8)` is a look at the instruction 12; `12: R0=scalar()` only tells what is known there.
fn visited(line: &str) -> Option<usize> {
    let (slot, rest) = line.split_once(": (")?;
    let (code, _) = rest.split_once(')')?;
    (code.len() == 2 && code.bytes().all(|b| b.is_ascii_hexdigit())).then(|| slot.parse().ok())?
}

/// `unreachable insn 12`, `back-edge from insn 9 to 3`, `jump out of range from insn 3 to 100`
fn named(line: &str) -> Option<usize> {
    let mut words = line.split(' ').skip_while(|word| *word != "insn");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libbpf says it of a program `name`, with what it says before and behind.
    fn said(name: &str, log: &str) -> String {
        format!(
            "libbpf: prog '{name}': BPF program load failed: -EACCES\nlibbpf: prog '{name}': {BEGIN}\n{log}\n{END}\nlibbpf: prog '{name}': failed to load: -EACCES\nlibbpf: failed to load object ''\n"
        )
    }

    const V6_1: &str = "\
reg type unsupported for arg#0 function open_0#6
0: R1=ctx(off=0,imm=0) R10=fp0
; tracepoint:syscalls:sys_enter_openat
0: (bf) r6 = r1                       ; R1=ctx(off=0,imm=0) R6_w=ctx(off=0,imm=0)
; pid == 1
1: (85) call bpf_get_current_pid_tgid#14      ; R0_w=scalar()
2: (77) r0 >>= 32                     ; R0_w=scalar(umax=4294967295,var_off=(0x0; 0xffffffff))
; str(args.filename)
3: (79) r3 = *(u64 *)(r0 +0)
R0 invalid mem access 'scalar'
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0";

    const V6_18: &str = "\
0: R1=ctx() R10=fp0
; tracepoint:syscalls:sys_enter_openat @ opens:open:0
0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()
; pid == 1 @ opens:open:1
1: (85) call bpf_get_current_pid_tgid#14      ; R0=scalar()
12: (77) r0 >>= 32                    ; R0=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))
mark_precise: frame0: last_idx 12 first_idx 0 subseq_idx -1
mark_precise: frame0: regs=r0 stack= before 1: (85) call bpf_get_current_pid_tgid#14
13: R0=scalar() R6=ctx() R10=fp0
; str(args.filename) @ opens:open:2
13: (79) r3 = *(u64 *)(r0 +0)
R0 invalid mem access 'scalar'
processed 14 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0";

    #[test]
    fn the_refused_instruction_is_found() {
        for (log, slot, source) in
            [(V6_1, 3, ("str(args.filename)", None)), (V6_18, 13, ("str(args.filename)", Some("opens:open:2")))]
        {
            let said = said("open_0", log);
            let found = VerifierLog::find(&said).unwrap();
            assert_eq!((found.program, found.text), ("open_0", log));
            assert_eq!((found.slot(), found.source()), (Some(slot), Some(source)));
        }
    }

    /// Found before the first instruction is looked at.
    #[test]
    fn faults_of_the_whole_program() {
        for (log, slot) in [
            ("unreachable insn 7\nprocessed 0 insns (limit 1000000) max_states_per_insn 0", Some(7)),
            ("back-edge from insn 9 to 3\nprocessed 0 insns (limit 1000000)", Some(9)),
            ("jump out of range from insn 3 to 100\nprocessed 0 insns", Some(3)),
            ("last insn is not an exit or jmp\nprocessed 0 insns (limit 1000000)", None),
            ("processed 0 insns (limit 1000000)", None),
            ("", None),
        ] {
            let said = said("p", log);
            let found = VerifierLog::find(&said).unwrap();
            assert_eq!((found.slot(), found.source()), (slot, None), "{log}");
        }
    }

    #[test]
    fn the_last_program_is_the_one_that_was_refused() {
        let both = said("first", V6_1) + &said("second", V6_18);
        assert_eq!(VerifierLog::find(&both).map(|log| log.program), Some("second"));
        // Cut off, or no log of the verifier's at all.
        let cut = "libbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n0: (95) exit";
        assert_eq!(VerifierLog::find(cut).map(|log| (log.text, log.slot())), Some(("0: (95) exit", Some(0))));
        for none in ["", "libbpf: failed to load object ''\n", "-- BEGIN PROG LOAD LOG --\n"] {
            assert_eq!(VerifierLog::find(none), None);
        }
    }
}
