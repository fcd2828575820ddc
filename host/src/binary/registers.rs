//! Where the registers of a thread in user mode lie in `struct pt_regs` (arch/x86/include/asm/ptrace.h), the context of
//! programs at user probes.

/// Each register by the structure's own name for it, and its offset. Each has 8 bytes.
pub const PT_REGS: [(&str, u32); 21] = [
    ("r15", 0),
    ("r14", 8),
    ("r13", 16),
    ("r12", 24),
    ("bp", 32),
    ("bx", 40),
    ("r11", 48),
    ("r10", 56),
    ("r9", 64),
    ("r8", 72),
    ("ax", 80),
    ("cx", 88),
    ("dx", 96),
    ("si", 104),
    ("di", 112),
    ("orig_ax", 120),
    ("ip", 128),
    ("cs", 136),
    ("flags", 144),
    ("sp", 152),
    ("ss", 160),
];

/// The offset of the register that the structure names so.
pub fn offset(name: &str) -> Option<u32> {
    PT_REGS.iter().find(|(known, _)| *known == name).map(|(_, offset)| *offset)
}

/// Offset and bytes of a register by the name that assemblers have for it, or for a part of it: `rax`, `eax`, `ax`,
/// `al`, `ah`, `r8d`, …
pub fn assembler(name: &str) -> Option<(u32, u8)> {
    if let Some(number) = name.strip_prefix('r').filter(|n| n.starts_with(|c: char| c.is_ascii_digit())) {
        let digits = number.trim_end_matches(|c: char| !c.is_ascii_digit());
        let bytes = match &number[digits.len()..] {
            "" => 8,
            "d" => 4,
            "w" => 2,
            "b" => 1,
            _ => return None,
        };
        return Some((offset(&format!("r{digits}"))?, bytes));
    }
    if let Some(whole) = name.strip_prefix('r') {
        return Some((offset(whole)?, 8));
    }
    if let Some(half) = name.strip_prefix('e') {
        return Some((offset(half)?, 4));
    }
    if let Some(at) = offset(name).filter(|_| name.len() == 2) {
        return Some((at, 2));
    }
    let (stem, part) = name.split_at_checked(name.len().checked_sub(1)?)?;
    match (stem, part) {
        ("a" | "b" | "c" | "d", "l") => Some((offset(&format!("{stem}x"))?, 1)),
        ("a" | "b" | "c" | "d", "h") => Some((offset(&format!("{stem}x"))? + 1, 1)),
        ("si" | "di" | "bp" | "sp", "l") => Some((offset(stem)?, 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_registers() {
        for (name, expected) in [
            ("rax", Some((80, 8))),
            ("eax", Some((80, 4))),
            ("ax", Some((80, 2))),
            ("al", Some((80, 1))),
            ("ah", Some((81, 1))),
            ("r8", Some((72, 8))),
            ("r15d", Some((0, 4))),
            ("r9w", Some((64, 2))),
            ("r10b", Some((56, 1))),
            ("sil", Some((104, 1))),
            ("rip", Some((128, 8))),
            ("rsp", Some((152, 8))),
            ("xmm0", None),
            ("r16", None),
            ("r8x", None),
            ("l", None),
            ("", None),
        ] {
            assert_eq!(assembler(name), expected, "{name}");
        }
    }
}
