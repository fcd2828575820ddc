//! Static markers (USDT): the notes that `DTRACE_PROBE` leaves in `.note.stapsdt`, and the operands in them.
//!
//! A marker is a `nop` and a note that tells its address and where the compiler put each argument, as the assembler
//! writes operands: `-4@%edi`, `8@$5`, `4@-16(%rbp)`. The number in front is the argument's bytes, negative for a
//! signed one (<https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation>).

use super::registers;

/// The type of a note of version 3.
pub const NOTE_TYPE: u32 = 3;
/// The name of such notes.
pub const NOTE_NAME: &[u8] = b"stapsdt";
/// Arguments of a marker at most (sys/sdt.h: `STAP_PROBE12`).
const MAX_ARGUMENTS: usize = 12;

/// One place of a marker. Inlining makes several of one name, each with operands of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub provider: String,
    pub name: String,
    /// Of the `nop`.
    pub address: u64,
    /// Of a counter of those who look at the marker; the program passes it by while that is 0.
    pub semaphore: Option<u64>,
    pub arguments: Vec<Argument>,
}

impl Marker {
    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        let other = |argument: &Argument| match &argument.operand {
            Operand::Other(text) => text.len(),
            _ => 0,
        };
        let arguments = size_of_val(&self.arguments[..]) + self.arguments.iter().map(other).sum::<usize>();
        size_of::<Marker>() + self.provider.len() + self.name.len() + arguments
    }
}

/// An argument of a marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// 1, 2, 4 or 8.
    pub bytes: u8,
    pub signed: bool,
    pub operand: Operand,
}

/// Where an argument is when the marker is passed. Registers are offsets into `struct pt_regs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    Constant(i64),
    Register(u32),
    Memory(Memory),
    /// None of the above, as the note has it.
    Other(String),
}

/// `displacement + base + index * scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub displacement: i64,
    pub base: Option<u32>,
    pub index: Option<(u32, u8)>,
}

/// Reads a note's contents. `base` is where the section `.stapsdt.base` is: a tool that moved the program after linking
/// moved that too, and the note remembers where it was. `symbols` are those of data, which operands may name.
pub fn marker(contents: &[u8], base: Option<u64>, symbols: &dyn Fn(&str) -> Option<u64>) -> Option<Marker> {
    let word = |n: usize| Some(u64::from_le_bytes(contents.get(n * 8..n * 8 + 8)?.try_into().ok()?));
    let (address, linked_base, semaphore) = (word(0)?, word(1)?, word(2)?);
    let moved = base.map_or(0, |base| base.wrapping_sub(linked_base));
    let mut texts = contents[24..].split(|b| *b == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let (provider, name, operands) = (texts.next()?, texts.next()?, texts.next().unwrap_or_default());
    let arguments = operands.split_ascii_whitespace().take(MAX_ARGUMENTS);
    Some(Marker {
        provider,
        name,
        address: address.wrapping_add(moved),
        semaphore: (semaphore != 0).then(|| semaphore.wrapping_add(moved)),
        arguments: arguments.map(|text| argument(text, address, symbols)).collect(),
    })
}

/// One operand. `at` is the marker's address as it was linked.
fn argument(text: &str, at: u64, symbols: &dyn Fn(&str) -> Option<u64>) -> Argument {
    let other = || Argument { bytes: 8, signed: false, operand: Operand::Other(text.to_owned()) };
    let (size, operand) = text.split_once('@').unwrap_or(("", text));
    let (signed, bytes) = match (size.strip_prefix('-'), size) {
        (Some(bytes), _) => (true, bytes),
        (None, "") => (false, "8"),
        (None, bytes) => (false, bytes),
    };
    let Ok(bytes @ (1 | 2 | 4 | 8)) = bytes.parse::<u8>() else { return other() };
    let found = if let Some(constant) = operand.strip_prefix('$') {
        number(constant).map(Operand::Constant)
    } else if let Some(register) = operand.strip_prefix('%') {
        // Of a register that is narrower than the argument nobody knows the rest.
        let known = registers::assembler(register).filter(|(_, width)| *width >= bytes);
        known.map(|(offset, _)| Operand::Register(offset))
    } else {
        memory(operand, at, symbols).map(Operand::Memory)
    };
    found.map_or_else(other, |operand| Argument { bytes, signed, operand })
}

/// `displacement(base,index,scale)`, of which each part may be missing.
fn memory(text: &str, at: u64, symbols: &dyn Fn(&str) -> Option<u64>) -> Option<Memory> {
    let (displacement, inside) = match text.split_once('(') {
        Some((displacement, inside)) => (displacement, inside.strip_suffix(')')?),
        None => (text, ""),
    };
    let register = |text: &str| match text.trim().strip_prefix('%') {
        Some(name) => registers::assembler(name).filter(|(_, bytes)| *bytes == 8).map(|(offset, _)| Some(offset)),
        None => text.trim().is_empty().then_some(None),
    };
    let mut parts = inside.split(',');
    let base = register(parts.next().unwrap_or_default())?;
    let index = register(parts.next().unwrap_or_default())?;
    let scale: u8 = parts.next().map_or(Some(1), |scale| scale.trim().parse().ok())?;
    let (distance, symbol) = displaced(displacement)?;
    let ip = registers::offset("ip");
    let memory = match symbol {
        None => Memory { displacement: distance, base, index: index.map(|index| (index, scale)) },
        // The program may have been loaded anywhere, but what it names is always as far from the marker.
        Some(symbol) if index.is_none() && (base == ip || base.is_none()) => {
            let far = symbols(symbol)?.wrapping_sub(at).cast_signed();
            Memory { displacement: far.wrapping_add(distance), base: ip, index: None }
        }
        Some(_) => return None,
    };
    // Relative to the instruction pointer is relative to the next instruction: only by a symbol is it known where that
    // is.
    (symbol.is_some() || (memory.base != ip && (memory.base.is_some() || memory.index.is_some()))).then_some(memory)
}

/// A sum of numbers and at most one symbol.
fn displaced(text: &str) -> Option<(i64, Option<&str>)> {
    let (mut sum, mut symbol) = (0i64, None);
    let mut rest = text.trim();
    while !rest.is_empty() {
        let unsigned = rest.trim_start_matches(['+', '-']);
        let negative = rest[..rest.len() - unsigned.len()].matches('-').count() % 2 == 1;
        let end = unsigned.find(['+', '-']).unwrap_or(unsigned.len());
        let (part, behind) = unsigned.split_at(end);
        if part.starts_with(|c: char| c.is_ascii_digit()) {
            let value = number(part)?;
            sum = sum.wrapping_add(if negative { value.wrapping_neg() } else { value });
        } else if part.is_empty() || negative || symbol.replace(part).is_some() {
            return None;
        }
        rest = behind;
    }
    Some((sum, symbol))
}

fn number(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let value = match digits.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok()?,
        None => digits.parse::<u64>().ok()?,
    };
    let value = value.cast_signed();
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operand(text: &str) -> (u8, bool, Operand) {
        let symbols = |name: &str| (name == "counter").then_some(0x4010);
        let found = argument(text, 0x1000, &symbols);
        (found.bytes, found.signed, found.operand)
    }

    #[test]
    fn operands() {
        let [bp, di, ax, dx, ip] = ["bp", "di", "ax", "dx", "ip"].map(|name| registers::offset(name).unwrap());
        let memory = |displacement, base, index| Operand::Memory(Memory { displacement, base, index });
        for (text, expected) in [
            ("-4@%edi", (4, true, Operand::Register(di))),
            ("8@%rax", (8, false, Operand::Register(ax))),
            ("1@%al", (1, false, Operand::Register(ax))),
            ("-1@%ah", (1, true, Operand::Register(ax + 1))),
            ("2@%eax", (2, false, Operand::Register(ax))),
            ("8@$5", (8, false, Operand::Constant(5))),
            ("-4@$-1", (4, true, Operand::Constant(-1))),
            ("8@$0xff", (8, false, Operand::Constant(255))),
            ("8@$18446744073709551615", (8, false, Operand::Constant(-1))),
            ("8@-16(%rbp)", (8, false, memory(-16, Some(bp), None))),
            ("-4@(%rax)", (4, true, memory(0, Some(ax), None))),
            ("8@8(%rax,%rdx,4)", (8, false, memory(8, Some(ax), Some((dx, 4))))),
            ("8@(%rax,%rdx)", (8, false, memory(0, Some(ax), Some((dx, 1))))),
            ("8@16(,%rdx,8)", (8, false, memory(16, None, Some((dx, 8))))),
            ("4@counter(%rip)", (4, false, memory(0x3010, Some(ip), None))),
            ("4@counter+8(%rip)", (4, false, memory(0x3018, Some(ip), None))),
            ("4@8+counter(%rip)", (4, false, memory(0x3018, Some(ip), None))),
            ("4@counter-8", (4, false, memory(0x3008, Some(ip), None))),
            ("%rdi", (8, false, Operand::Register(di))),
        ] {
            assert_eq!(operand(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_operand_is_kept_as_it_is() {
        for text in [
            "8f@%xmm0",
            "3@%rax",
            "8@%eax",
            "8@%xmm0",
            "8@(%eax)",
            "8@nothing(%rip)",
            "8@4(%rip)",
            "8@12",
            "8@",
            "@",
            "8@$",
            "8@(%rax",
            "8@-(%rax)",
            "8@counter(%rax)",
            "8@%fs:40",
            "8@(%rax,%rdx,4,4",
            "-@%rax",
            "8@counter+counter(%rip)",
        ] {
            assert!(matches!(operand(text).2, Operand::Other(kept) if kept == text), "{text}");
        }
    }

    #[test]
    fn notes() {
        let words = [0x1234u64, 0x2000, 0x3000].map(u64::to_le_bytes).concat();
        let note = [words.as_slice(), b"shop\0sale\0-4@%edi 8@$5\0"].concat();
        let read = |base| marker(&note, base, &|_| None).unwrap();
        let found = read(None);
        assert_eq!((found.provider.as_str(), found.name.as_str(), found.arguments.len()), ("shop", "sale", 2));
        assert_eq!((found.address, found.semaphore), (0x1234, Some(0x3000)));
        let moved = read(Some(0x2100));
        assert_eq!((moved.address, moved.semaphore), (0x1334, Some(0x3100)));
        assert_eq!(marker(&note[..20], None, &|_| None), None);
    }
}
