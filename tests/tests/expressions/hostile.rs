//! What no well-meaning plugin declares: it is refused or compiled, and never more than that.
//!
//! "Refused" is a message that a terminal can bear: of bounded length, without control characters. "Compiled" is what
//! the machine can run. Nothing panics, nothing overflows a stack, and nothing is called a bug of Porthole.

use std::thread;

use porthole::compile::{CompileError, compile};
use porthole::declare::{Declaration, Probe};
use porthole::lower::lower;

use super::*;
use porthole_tests::random::{Random, SEED, seed};

/// Texts made.
const TEXTS: u64 = 3000;
/// Bytes that 50 messages may have: each shows at most some 1000 characters, and 100 of the expression.
const MESSAGE: usize = 50 * 5000;

/// Whether it is accepted.
///
/// # Panics
/// Where the outcome is not one that a plugin may cause.
pub fn outcome(declaration: &Declaration, facts: &KernelFacts) -> bool {
    match plan(declaration, facts) {
        Err(faults) => {
            let text = faults.to_string();
            assert!(!text.is_empty() && text.len() <= MESSAGE, "{} bytes", text.len());
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            false
        }
        Ok(plan) => match compile(&plan, "plugin", 4096) {
            Ok(_) | Err(CompileError::TooLarge(_) | CompileError::TooComplex { .. }) => true,
            Err(error) => panic!("{error}\n{declaration:#?}"),
        },
    }
}

fn accepted(expression: &str) -> bool {
    outcome(&declaration::of_fields(MADE, [("f", expression)]), &FACTS)
}

/// Says how to make the declaration anew that has led to a panic.
pub struct ToldOnPanic(pub u64);

impl Drop for ToldOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{SEED}={}", self.0);
        }
    }
}

#[test]
fn garbage() {
    for seed in seed()..seed() + TEXTS {
        let _told = ToldOnPanic(seed);
        let mut random = Random::new(seed);
        let length = random.below(60);
        let text: String = (0..length).map(|_| char::from_u32(random.below(0x250) as u32).unwrap_or('x')).collect();
        accepted(&text);
        outcome(&declaration::of_fields(&text, [(text.as_str(), text.as_str())]), &FACTS);
    }
}

/// The parser, the checker, the lowering and what drops the trees go down with the expression: a thread's usual stack
/// must hold what the limits allow.
#[test]
fn depth() {
    let deep = || {
        // What is repeated in front of `pid` and behind it, and how often it may be.
        for (open, close, most) in [
            ("(", ")", 64),
            ("!", "", 64),
            ("-", "", 64),
            ("1 ? 2 : ", "", 64),
            ("1 ? ", " : 2", 64),
            ("str(", ")", 0),
            ("args.name[", "]", 64),
            ("(u8)", "", 64),
            ("sizeof(", ")", 64),
            ("*", "", 0),
            ("", " + 1", 255),
            ("", " || cpu == 1", 254),
            ("", ".real_parent", 0),
            ("1 + ", "", 255),
            ("nsecs * (", " + 1)", 64),
        ] {
            let of_depth = |n: usize| accepted(&format!("{}pid{}", open.repeat(n), close.repeat(n)));
            assert!(of_depth(most), "{open}…{close}: {most} times");
            assert!(!of_depth(most + 1), "{open}…{close}: {} times", most + 1);
            of_depth(4093 / (open.len() + close.len()));
            of_depth(100_000);
        }
        let walk = format!("task{}.pid", ".real_parent".repeat(254));
        assert!(accepted(&walk) && !accepted(&walk.replacen("task", "task.real_parent", 1)));
    };
    // 2 MiB is what threads have unless they ask for more.
    thread::Builder::new().stack_size(2 << 20).spawn(deep).unwrap().join().unwrap();
}

#[test]
fn many_probes_each_within_its_bounds() {
    let refusal = |expression: &str, probes| {
        let fields = ["a", "b", "c", "d"].map(|name| (name, expression));
        let named = |n| Probe { name: format!("p{n}"), ..declaration::of_fields(MADE, fields).probes.remove(0) };
        let declaration = Declaration { probes: (0..probes).map(named).collect(), ..Declaration::default() };
        let lowered = plan(&declaration, &FACTS).map(|plan| lower(&plan, "plugin", 4096).map(drop));
        lowered.map_or_else(|e| e.to_string(), |lowered| lowered.map_or_else(|e| e.to_string(), |()| String::new()))
    };
    let (division, sum) = (vec!["(tid-1)"; 60].join("/"), vec!["0xffffffffffff"; 256].join("+"));
    assert_eq!(refusal(&division, 10), "");
    assert!(refusal(&division, 100).contains("more than 262144 operations"), "{}", refusal(&division, 100));
    assert_eq!(refusal(&sum, 10), "");
    assert!(refusal(&sum, 100).contains("1535600 bytes, and 1048576 is the most"), "{}", refusal(&sum, 100));
}

#[test]
fn numbers() {
    for number in [
        "0",
        "1",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
    ] {
        for form in [
            "#",
            "-#",
            "args.s64 + #",
            "args.u64 % #",
            "args.s64 / -#",
            "1 << #",
            "str(args.s, #)",
            "args.p.comm[#]",
            "task.se.load.weight[#]",
        ] {
            accepted(&form.replace('#', number));
        }
    }
    for tick in [0, 9, 10, 86_400_000, 86_400_001, u32::MAX] {
        let declaration = Declaration { tick: Some(tick), ..declaration::of_fields(MADE, []) };
        assert_eq!(outcome(&declaration, &FACTS), (10..=86_400_000).contains(&tick), "{tick}");
    }
}
