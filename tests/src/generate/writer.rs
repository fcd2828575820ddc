//! Expressions of a vocabulary: each construct of the language, within one another.

use porthole::kernel::{Btf, Kind, TypeId};
use porthole::plan::{Origin, Target, Type};

use super::vocabulary::{Vocabulary, Word, go_together, walk};
use crate::random::{OPERATORS, Random};

/// Writes expressions, `depth` deep at most.
pub struct Writer<'a> {
    pub random: &'a mut Random,
    pub(super) btf: &'a Btf,
    pub(super) vocabulary: &'a Vocabulary,
    bound: Vec<Word>,
    /// The objects at hand of the walks that an expression stands in.
    pub(super) items: Vec<Word>,
    /// Bytes that a kfunc may write at most.
    pub(super) longest_written: u32,
}

pub(super) const NUMBER: Type = Type::Integer { bytes: 8, signed: true };

/// Types that numbers are cast to.
const INTEGERS: [&str; 16] = [
    "u8",
    "s8",
    "char",
    "signed char",
    "u16",
    "short",
    "unsigned short",
    "u32",
    "int",
    "unsigned",
    "u64",
    "long",
    "size_t",
    "pid_t",
    "bool",
    "enum hrtimer_restart",
];

const CONSTANTS: [&str; 12] = [
    "O_CREAT",
    "EINVAL",
    "AF_INET6",
    "SIGKILL",
    "CLONE_VM",
    "PROT_EXEC",
    "SS_CONNECTED",
    "RPM_INVALID",
    "TCP_ESTABLISHED",
    "SKB_DROP_REASON_NOT_SPECIFIED",
    "HRTIMER_RESTART",
    "PIDTYPE_TGID",
];

const TEXTS: [&str; 10] = [
    "",
    "/",
    "sh",
    "bash",
    "/usr/lib/",
    "exactly-15-byte",
    "sixteen bytes!!!",
    "a \\\"quoted\\\" text\\x21",
    "a text of forty bytes, no more, no fewer",
    "a text that is rather long, longer than what is put together on the stack, and so long that comparing it takes some dozens of loads",
];

impl<'a> Writer<'a> {
    pub fn new(random: &'a mut Random, btf: &'a Btf, vocabulary: &'a Vocabulary) -> Writer<'a> {
        Writer { random, btf, vocabulary, bound: Vec::new(), items: Vec::new(), longest_written: 64 }
    }

    /// A name that is not bound yet, and a value for it.
    pub fn binding(&mut self, depth: u32) -> (String, String) {
        let name = format!("b{}", self.bound.len());
        let asked = if self.asks(depth, 3) { self.asked_pointer(depth) } else { None };
        if let Some(Word { text, ty }) = asked {
            self.bound.push(Word { text: name.clone(), ty });
            return (name, text);
        }
        let (value, ty) = match self.random.below(6) {
            0 => (self.text(depth, 300), Type::Text { max: 0 }),
            5 if self.random.below(2) == 0 => (self.ip(depth), Type::Ip),
            5 => (self.mac(depth), Type::Mac),
            1 | 2 => match self.pointer(depth) {
                Some(Word { text, ty }) => (text, ty),
                None => (self.number(depth), NUMBER),
            },
            _ => (self.number(depth), NUMBER),
        };
        self.bound.push(Word { text: name.clone(), ty });
        (name, value)
    }

    pub fn field(&mut self, depth: u32) -> String {
        match self.random.below(11) {
            8 => {
                let address = match self.random.below(3) {
                    0 => self.pointer(depth).map_or_else(|| "nsecs".to_owned(), |word| word.text),
                    1 => self
                        .random
                        .pick(&["task", "task.mm", "(u64)task.stack", "nsecs", "task.mm.exe_file.f_op"])
                        .to_owned(),
                    _ => format!("(u64)({})", self.number(depth)),
                };
                let is_user = self.random.below(2) == 0;
                if is_user { format!("usym({address})") } else { format!("ksym(kernel({address}))") }
            }
            9 if !self.vocabulary.attach[0].starts_with("iter:") => {
                let stack = self.random.pick(&["kstack", "ustack"]);
                let frames = self.random.pick(&[1, 2, 3, 16, 100, 126, 127]);
                let one = if self.random.below(3) == 0 { stack.to_owned() } else { format!("{stack}({frames})") };
                match self.random.below(4) {
                    0 => format!("({} ? {one} : {one})", self.condition(depth)),
                    _ => one,
                }
            }
            10 if self.random.below(3) == 0 => self.mac(depth),
            10 => self.ip(depth),
            0 | 1 => {
                let longest = self.random.pick(&[16, 100, 300, 300, 4096]);
                self.text(depth, longest)
            }
            2 => self.condition(depth),
            3 => self.pointer(depth).map_or_else(|| self.number(depth), |word| word.text),
            4 => self.word(|_| true).text,
            _ => self.number(depth),
        }
    }

    /// A condition that is not certain to be false.
    pub fn likely(&mut self, depth: u32) -> String {
        let condition = self.condition(depth);
        if self.random.below(2) == 0 { condition } else { format!("({condition}) || tid != 1") }
    }

    /// Whether the kernel is to be asked, one time of so many.
    fn asks(&mut self, depth: u32, times: u64) -> bool {
        depth > 0 && !self.vocabulary.kfuncs.calls.is_empty() && self.random.below(times) == 0
    }

    /// A number, in parentheses where it needs some.
    pub(super) fn number(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.leaf();
        }
        let asked = if self.asks(depth, 5) { self.asked_number(depth - 1) } else { None };
        if let Some(text) = asked {
            return text;
        }
        match self.random.below(21) {
            0 => self.leaf(),
            20 => {
                let names =
                    self.random.pick(&["O_", "MAP_", "SOCK_", "CLONE_", "S_", "MS_ASYNC|MS_SYNC", "enum sock_type"]);
                format!("flags({}, \"{names}\")", self.number(depth - 1))
            }
            1 | 2 => format!("{}{}", self.random.pick(&["-", "~", "!", "+"]), self.operand(depth - 1)),
            3 => {
                let condition = self.condition(depth - 1);
                format!("({condition} ? {} : {})", self.number(depth - 1), self.number(depth - 1))
            }
            4 => {
                let ty = self.random.pick(&INTEGERS);
                format!("({ty}){}", self.operand(depth - 1))
            }
            5 => format!("({})", self.condition(depth - 1)),
            6 => match self.pointer(depth - 1) {
                Some(pointer) => format!("({}){}", self.random.pick(&["u64", "int", "bool", "u16"]), pointer.text),
                None => self.leaf(),
            },
            7 | 8 => self.behind(depth - 1).unwrap_or_else(|| self.leaf()),
            9 => {
                let text = self.word(|_| true).text;
                format!("({})", self.random.pick(&["sizeof(#)", "(typeof(#))7", "sizeof(long)"]).replace('#', &text))
            }
            11 => {
                const FUNCTIONS: [&str; 8] =
                    ["errno", "errno", "signal", "syscall", "bswap", "ntohs", "ntohl", "(u16)bswap"];
                let function = self.random.pick(&FUNCTIONS);
                // The bytes of a number are swapped, of which it must have some.
                format!(
                    "{function}({})",
                    if function.ends_with("bswap") { self.leaf() } else { self.number(depth - 1) }
                )
            }
            // As many operators as there may be in a row are many operations.
            10 if depth > 2 && self.random.below(6) == 0 => {
                let (leaf, operator) = (self.leaf(), self.random.pick(&["+", "^", "&&", "||", "*", "-"]));
                let times = 2 + self.random.below(60) as usize;
                format!("({})", vec![leaf; times].join(&format!(" {operator} ")))
            }
            _ => {
                let (left, right) = (self.number(depth - 1), self.number(depth - 1));
                format!("({left} {} {right})", self.random.pick(&OPERATORS))
            }
        }
    }

    /// A number that a unary operator may stand before.
    fn operand(&mut self, depth: u32) -> String {
        format!("({})", self.number(depth))
    }

    pub(super) fn leaf(&mut self) -> String {
        match self.random.below(6) {
            0 => self.constant(),
            _ => self.word(Word::is_number).text,
        }
    }

    fn constant(&mut self) -> String {
        match self.random.below(5) {
            0 => self.random.pick(&CONSTANTS).to_owned(),
            1 => format!("{:#x}", self.random.number() as u64),
            2 => self.random.pick(&["true", "'a'", "'\\n'", "0b1010", "017", "1_000_000ul"]).to_owned(),
            _ => (self.random.number() as u64).to_string(),
        }
    }

    /// Something that is 0 or not.
    fn condition(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.below(13) {
            12 => self.compared_addresses(depth - 1),
            0 | 1 => {
                let (left, right) = (self.condition(depth - 1), self.condition(depth - 1));
                format!("({left} {} {right})", self.random.pick(&["&&", "||"]))
            }
            2 => format!("!({})", self.condition(depth - 1)),
            3 => {
                let members: Vec<String> = (0..=self.random.below(12)).map(|_| self.constant()).collect();
                format!("({} in ({}))", self.number(depth - 1), members.join(", "))
            }
            4 => {
                let (text, literal) = (self.text(depth - 1, 64), self.literal());
                format!("({text} {} {literal})", self.random.pick(&["==", "!="]))
            }
            5 => {
                let (left, right) = (self.text(depth - 1, 64), self.text(depth - 1, 40));
                format!("({left} {} {right})", self.random.pick(&["==", "!="]))
            }
            6 => {
                let function = self.random.pick(&["starts_with", "ends_with", "contains"]);
                format!("{function}({}, {})", self.text(depth - 1, 40), self.literal())
            }
            7 => {
                let members: Vec<String> = (0..=self.random.below(5)).map(|_| self.literal()).collect();
                format!("({} in ({}))", self.text(depth - 1, 64), members.join(", "))
            }
            8 | 9 => {
                let form = self.random.pick(&["#", "!#", "(# == 0)", "(# != task)", "!!#", "(# in (0, 1, 0xffff))"]);
                match self.pointer(depth - 1) {
                    Some(pointer) => form.replace('#', &pointer.text),
                    None => self.number(depth - 1),
                }
            }
            _ => self.number(depth - 1),
        }
    }

    /// A text of so many bytes at most, or whatever an array holds.
    pub(super) fn text(&mut self, depth: u32, longest: u32) -> String {
        let asked = if self.asks(depth, 6) { self.asked_text(depth - 1, longest) } else { None };
        if let Some(text) = asked {
            return text;
        }
        if depth > 0 && self.random.below(5) == 0 {
            let condition = self.condition(depth - 1);
            return format!("({condition} ? {} : {})", self.text(depth - 1, longest), self.text(depth - 1, longest));
        }
        match self.random.below(10) {
            0 => self.literal(),
            1 => "comm".to_owned(),
            7 => self.bytes(depth, longest),
            8 if self.items.is_empty() => self.path(longest),
            2 | 3 => self.word(|word| matches!(word.ty, Type::Text { .. })).text,
            _ => {
                let pointer = if self.vocabulary.user && self.random.below(2) == 0 {
                    self.word(|word| matches!(word.ty, Type::Integer { bytes: 8, .. }) && !word.text.starts_with('b'))
                        .text
                } else {
                    let to_char = |word: &Word| matches!(word.ty, Type::Pointer { target: Target::Char, .. });
                    match self.random.below(3) {
                        0 if depth > 0 => self.pointer(depth - 1).map_or_else(|| "task".to_owned(), |p| p.text),
                        _ => self.maybe_word(to_char).map_or_else(|| "&task.comm".to_owned(), |word| word.text),
                    }
                };
                let most = self.random.pick(&[1, 2, 7, 8, 15, 16, 17, 63, 64, 100, 255, 256, 1000, 4096]).min(longest);
                if most == 256 { format!("str({pointer})") } else { format!("str({pointer}, {most})") }
            }
        }
    }

    /// The path of a file, of so many bytes at most.
    fn path(&mut self, longest: u32) -> String {
        const EVERYWHERE: [&str; 5] = [
            "task.mm.exe_file",
            "task.fs.pwd",
            "task.fs.root.dentry",
            "task.files.fdt.fd[cpu]",
            "&task.files.fdt.fd[0].f_path",
        ];
        let of_files = ["file", "path", "dentry"].map(|name| self.btf.structure(name));
        let is_one = |word: &Word| word.structure().is_some_and(|id| of_files.contains(&Some(id)));
        let is_kernels = |word: &Word| !matches!(word.ty, Type::Pointer { origin: Origin::User, .. });
        let file = self.maybe_word(|word| is_one(word) && is_kernels(word)).map(|word| word.text);
        let file = file.unwrap_or_else(|| self.random.pick(&EVERYWHERE).to_owned());
        let most = self.random.pick(&[1, 2, 16, 255, 256, 1024, 4096]).min(longest);
        if most == 1024 { format!("path({file})") } else { format!("path({file}, {most})") }
    }

    /// Bytes, which stand wherever a text may.
    fn bytes(&mut self, depth: u32, longest: u32) -> String {
        let most = self.random.pick(&[1, 2, 7, 16, 63, 256, 1000, 4096]).min(longest);
        if self.random.below(4) == 0
            && let Some(array) = self.maybe_word(|w| matches!(w.ty, Type::Text { .. }) && w.text.contains('.'))
        {
            return format!("buf({})", array.text);
        }
        let pointer = self.address(depth);
        match self.random.below(3) {
            0 => format!("buf({pointer}, {most})"),
            1 if longest >= 256 => format!("buf({pointer}, {})", self.number(depth.saturating_sub(1))),
            _ => format!("buf({pointer}, {}, {most})", self.number(depth.saturating_sub(1))),
        }
    }

    /// What bytes may be read through.
    fn address(&mut self, depth: u32) -> String {
        if self.vocabulary.user && self.random.below(2) == 0 {
            let word = |word: &Word| matches!(word.ty, Type::Integer { bytes: 8, .. }) && !word.text.starts_with('b');
            return self.maybe_word(word).map_or_else(|| "task".to_owned(), |word| word.text);
        }
        let path = self.word(|word| word.structure().is_some());
        match path.structure().and_then(|id| walk(self.random, self.btf, &path.text, id, 2)) {
            Some(member) if self.random.below(3) == 0 && !member.ends_with(']') => format!("&{member}"),
            _ => self.pointer(depth.saturating_sub(1)).map_or_else(|| "&task.comm".to_owned(), |word| word.text),
        }
    }

    fn ip(&mut self, depth: u32) -> String {
        if depth > 0 && self.random.below(5) == 0 {
            let condition = self.condition(depth - 1);
            return format!("({condition} ? {} : {})", self.ip(depth - 1), self.ip(depth - 1));
        }
        let less = depth.saturating_sub(1);
        match self.random.below(6) {
            0 => self.maybe_word(|word| word.ty == Type::Ip).map_or_else(|| "ntop(0x0100007f)".to_owned(), |w| w.text),
            1 => format!("ntop((u32){})", self.operand(less)),
            2 => format!("ntop(AF_INET, {})", self.address(less)),
            3 => format!("ntop(AF_INET6, {})", self.address(less)),
            _ => {
                let family =
                    if self.random.below(2) == 0 { "(cpu ? AF_INET : AF_INET6)".to_owned() } else { self.number(less) };
                // A number that is known must be that of a family.
                format!("ntop({family} + (cpu & 0), {})", self.address(less))
            }
        }
    }

    fn mac(&mut self, depth: u32) -> String {
        match self.random.below(4) {
            0 => self.maybe_word(|word| word.ty == Type::Mac).map_or_else(|| "mac(&task.comm)".to_owned(), |w| w.text),
            1 if depth > 0 => {
                let condition = self.condition(depth - 1);
                format!("({condition} ? {} : {})", self.mac(depth - 1), self.mac(depth - 1))
            }
            _ => format!("mac({})", self.address(depth)),
        }
    }

    fn compared_addresses(&mut self, depth: u32) -> String {
        const IPS: [&str; 4] = ["127.0.0.1", "::1", "255.255.255.255", "2001:db8::fffe:9"];
        let equal = self.random.pick(&["==", "!="]);
        match self.random.below(5) {
            0 => format!("({} {equal} \"{}\")", self.ip(depth), self.random.pick(&IPS)),
            1 => format!("({} in (\"{}\", \"{}\"))", self.ip(depth), self.random.pick(&IPS), self.random.pick(&IPS)),
            2 => format!("({} {equal} {})", self.mac(depth), self.mac(depth)),
            3 => format!("({} {equal} \"ff:ff:ff:ff:ff:ff\")", self.mac(depth)),
            _ => format!("({} {equal} {})", self.ip(depth), self.ip(depth)),
        }
    }

    pub(super) fn literal(&mut self) -> String {
        format!("\"{}\"", self.random.pick(&TEXTS))
    }

    /// A pointer, in parentheses where it needs some.
    fn pointer(&mut self, depth: u32) -> Option<Word> {
        let is_pointer = |word: &Word| matches!(word.ty, Type::Pointer { .. });
        let asked = if self.asks(depth, 5) { self.asked_pointer(depth - 1) } else { None };
        if asked.is_some() {
            return asked;
        }
        let word = self.maybe_word(is_pointer)?;
        if depth == 0 {
            return Some(word);
        }
        Some(match self.random.below(9) {
            0 => {
                // Pointers to two things point to nothing that is known.
                let other = self.maybe_word(|other| other.ty == word.ty).unwrap_or_else(|| word.clone());
                let condition = self.condition(depth - 1);
                Word { text: format!("({condition} ? {} : {})", word.text, other.text), ty: word.ty }
            }
            1 => {
                let other = self.maybe_word(|other| is_pointer(other) && go_together(&other.ty, &word.ty));
                let other = other.unwrap_or_else(|| word.clone());
                let condition = self.condition(depth - 1);
                let text = format!("({condition} ? {} : {})", word.text, other.text);
                self.cast(&text, false, &word.ty)
            }
            2 => {
                let (text, is_user) = (word.text.clone(), self.vocabulary.user && self.random.below(2) == 0);
                self.cast(&format!("(u64){text}"), is_user, &word.ty)
            }
            3 => {
                let text = format!("({})", self.number(depth - 1));
                self.cast(&text, self.vocabulary.user, &word.ty)
            }
            4 => self.container(&word).unwrap_or(word),
            7 => {
                let function = self.random.pick(&["user", "kernel"]);
                let origin = if function == "user" { Origin::User } else { Origin::Kernel };
                let Type::Pointer { target, .. } = word.ty else { return Some(word) };
                Word { text: format!("{function}({})", word.text), ty: Type::Pointer { target, origin } }
            }
            5 | 6 => match word.structure().and_then(|id| walk(self.random, self.btf, &word.text, id, 2)) {
                // Whether it is a pointer is known where it is one to a structure.
                Some(path) if path.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') => {
                    let ty = Type::Pointer { target: Target::Unknown, origin: Origin::Kernel };
                    Word { text: format!("(&{path})"), ty }
                }
                _ => word,
            },
            _ => word,
        })
    }

    /// The value cast to a pointer: mostly to one to a structure.
    fn cast(&mut self, value: &str, user: bool, like: &Type) -> Word {
        let origin = if user { Origin::User } else { Origin::Kernel };
        let of_user = if user { " __user" } else { "" };
        let (name, target) = match (self.random.below(4), like) {
            (0, _) => ("char".to_owned(), Target::Char),
            (1, _) => ("int".to_owned(), Target::Scalar(Box::new(Type::Integer { bytes: 4, signed: true }))),
            (2, _) => ("void".to_owned(), Target::Unknown),
            (_, Type::Pointer { target: Target::Type(id), .. }) => match self.name_of(*id) {
                Some(name) => (name, Target::Type(*id)),
                None => ("u8".to_owned(), Target::Char),
            },
            _ => ("u16".to_owned(), Target::Scalar(Box::new(Type::Integer { bytes: 2, signed: false }))),
        };
        Word { text: format!("(({name}{of_user} *){value})"), ty: Type::Pointer { target, origin } }
    }

    /// What a pointer to one of its members leads back to.
    fn container(&mut self, word: &Word) -> Option<Word> {
        let id = word.structure()?;
        let name = self.name_of(id)?;
        let members = self.btf.member_names(id);
        let member = members.get(self.random.below(members.len() as u64 + 1) as usize)?;
        let at = self.btf.member(id, member)?;
        if at.bit_size.is_some_and(|size| size > 0) {
            return None;
        }
        let base = if self.random.below(3) == 0 { word.text.clone() } else { format!("&{}.{member}", word.text) };
        let Type::Pointer { target, origin } = word.ty.clone() else { return None };
        let origin = if origin == Origin::Trusted { Origin::Kernel } else { origin };
        let text = format!("container_of({base}, {name}, {member})");
        Some(Word { text, ty: Type::Pointer { target, origin } })
    }

    /// `struct NAME`, where it has one that means this structure and no other.
    fn name_of(&self, id: TypeId) -> Option<String> {
        match self.btf.kind(id) {
            Kind::Struct { name, .. } if self.btf.structure(&name) == Some(id) => Some(format!("struct {name}")),
            Kind::Union { name, .. } if self.btf.union(&name) == Some(id) => Some(format!("union {name}")),
            _ => None,
        }
    }

    /// A number behind a pointer.
    fn behind(&mut self, depth: u32) -> Option<String> {
        let pointer = self.pointer(depth)?;
        let Type::Pointer { target, .. } = &pointer.ty else { return None };
        let text = pointer.text;
        Some(match target {
            Target::Type(id) => {
                let path = walk(self.random, self.btf, &text, *id, 2)?;
                match self.random.below(6) {
                    0 => format!("(u64){path}"),
                    1 => format!("(*{text}).{}", path.strip_prefix(&text)?.trim_start_matches(['.', '-', '>'])),
                    2 => format!("((u8 *)&{path})[{}]", self.random.below(9)),
                    _ => format!("(bool){path}"),
                }
            }
            Target::Char | Target::Scalar(_) if !matches!(target, Target::Scalar(ty) if matches!(**ty, Type::Pointer { .. })) => {
                match self.random.below(3) {
                    0 => format!("(*{text})"),
                    1 => format!("{text}[{}]", self.random.pick(&["0", "1", "-1", "cpu", "pid & 7", "999999"])),
                    _ => format!("{text}[{}]", self.number(depth)),
                }
            }
            _ => format!("((u32 *){text})[{}]", self.number(depth)),
        })
    }

    /// One of the words for which that holds, those that are bound sooner than others; where there is none, a number.
    fn word(&mut self, wanted: impl Fn(&Word) -> bool) -> Word {
        self.maybe_word(&wanted).unwrap_or_else(|| {
            let is_text = wanted(&Word { text: String::new(), ty: Type::Text { max: 0 } })
                && !wanted(&Word { text: String::new(), ty: NUMBER });
            Word { text: if is_text { "comm" } else { "pid" }.to_owned(), ty: NUMBER }
        })
    }

    pub(super) fn maybe_word(&mut self, wanted: impl Fn(&Word) -> bool) -> Option<Word> {
        let bound: Vec<&Word> = self.items.iter().chain(&self.bound).filter(|word| wanted(word)).collect();
        if !bound.is_empty() && self.random.below(2) == 0 {
            return Some(bound[self.random.below(bound.len() as u64) as usize].clone());
        }
        let words: Vec<&Word> = self.vocabulary.words.iter().filter(|word| wanted(word)).collect();
        if words.is_empty() {
            return bound.first().map(|word| (*word).clone());
        }
        Some(words[self.random.below(words.len() as u64) as usize].clone())
    }
}
