//! Random expressions that mean something, the same for the same seed.

use crate::declaration::{bind, of_fields};
use porthole::declare::{Declaration, Step};

/// The environment variable with the seed to begin with.
pub const SEED: &str = "PORTHOLE_SEED";

/// The seed to begin with: 1, or what [`SEED`] says.
///
/// # Panics
/// Where that is no number.
pub fn seed() -> u64 {
    std::env::var(SEED).ok().map_or(1, |s| s.parse().unwrap_or_else(|e| panic!("{SEED}: {e}")))
}

/// The environment variable that says how many of something random are made.
pub const COUNT: &str = "PORTHOLE_COUNT";

/// How many are made: as many as a test says, or as [`COUNT`] does.
///
/// # Panics
/// Where that is no number.
pub fn count(usual: u64) -> u64 {
    std::env::var(COUNT).ok().map_or(usual, |s| s.parse().unwrap_or_else(|e| panic!("{COUNT}: {e}")))
}

/// Numbers that are the same for the same seed (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for n in (1..values.len()).rev() {
            values.swap(n, self.below(n as u64 + 1) as usize);
        }
    }

    /// Small, at an edge, or anything.
    pub fn number(&mut self) -> i64 {
        const EDGES: [i64; 14] =
            [0, 1, -1, 2, 31, 32, 63, 64, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, -0x8000_0000, i64::MAX, i64::MIN];
        match self.below(4) {
            0 => self.below(16) as i64,
            1 | 2 => self.pick(&EDGES),
            _ => (self.next() >> self.below(64)) as i64,
        }
    }
}

/// What expressions may name at an attach point.
pub struct Names {
    pub attach: &'static str,
    pub numbers: &'static [&'static str],
    /// Names that mean something everywhere.
    pub builtins: &'static [&'static str],
    /// Pointers to `struct task_struct`.
    pub pointers: &'static [&'static str],
    /// Members of a `task_struct` that are numbers.
    pub members: &'static [&'static str],
}

/// A body: bindings `b0`, `b1`, …, perhaps a condition, and fields.
pub struct Program {
    pub bindings: Vec<String>,
    /// Which of the bindings are pointers.
    pub pointers: Vec<bool>,
    pub condition: Option<String>,
    pub fields: Vec<String>,
}

impl Program {
    pub fn new(random: &mut Random, names: &Names, fields: usize) -> Program {
        let mut writer = Writer { random, names, bound: Vec::new() };
        let mut bindings = Vec::new();
        for _ in 0..writer.random.below(5) {
            let pointer = writer.random.below(3) == 0;
            bindings.push(if pointer { writer.pointer(2) } else { writer.integer(3) });
            writer.bound.push(pointer);
        }
        let condition = (writer.random.below(4) == 0).then(|| writer.condition(3));
        let field = |_| if writer.random.below(4) == 0 { writer.condition(4) } else { writer.integer(4) };
        let fields = (0..fields).map(field).collect();
        Program { bindings, pointers: writer.bound, condition, fields }
    }

    pub fn declaration(&self, attach: &str) -> Declaration {
        let names: Vec<String> = (0..self.fields.len()).map(|n| format!("f{n}")).collect();
        let mut declaration =
            of_fields(attach, names.iter().map(String::as_str).zip(self.fields.iter().map(String::as_str)));
        let binds = self.bindings.iter().enumerate().map(|(n, value)| bind(&format!("b{n}"), value));
        let steps = binds.chain(self.condition.iter().map(|c| Step::When(c.clone())));
        declaration.probes[0].body.splice(0..0, steps);
        declaration
    }
}

/// Writes expressions, `depth` deep at most.
struct Writer<'a> {
    random: &'a mut Random,
    names: &'a Names,
    /// Of each binding so far, whether it is a pointer.
    bound: Vec<bool>,
}

/// What an operator of numbers joins needs no parentheses, however it is grouped.
pub const OPERATORS: [&str; 16] =
    ["|", "^", "&", "==", "!=", "<", "<=", ">", ">=", "<<", ">>", "+", "-", "*", "/", "%"];

impl Writer<'_> {
    /// A number.
    fn integer(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.below(11) {
            0 => self.leaf(),
            10 => self.cast(depth - 1),
            1 => format!("{}{}", self.random.pick(&["-", "~", "!", "+"]), self.closed(depth - 1)),
            2 => format!("({} ? {} : {})", self.condition(depth - 1), self.integer(depth - 1), self.integer(depth - 1)),
            3 => format!("!({})", self.condition(depth - 1)),
            _ => {
                let (left, right) = (self.integer(depth - 1), self.integer(depth - 1));
                let joined = format!("{left} {} {right}", self.random.pick(&OPERATORS));
                if self.random.below(2) == 0 { format!("({joined})") } else { joined }
            }
        }
    }

    /// A number or a pointer as a number of some type.
    fn cast(&mut self, depth: u32) -> String {
        const TYPES: [&str; 12] = [
            "u8",
            "signed char",
            "u16",
            "unsigned short",
            "short",
            "u32",
            "unsigned",
            "int",
            "u64",
            "unsigned long",
            "long",
            "bool",
        ];
        let ty = self.random.pick(&TYPES);
        match self.random.below(5) {
            0 => format!("({ty}){}", self.pointer(depth)),
            1 => format!("(enum hrtimer_restart){}", self.closed(depth)),
            _ => format!("({ty}){}", self.closed(depth)),
        }
    }

    /// A number that needs no parentheses.
    fn closed(&mut self, depth: u32) -> String {
        if self.random.below(2) == 0 { self.leaf() } else { format!("({})", self.integer(depth)) }
    }

    /// Something that is 0 or not.
    fn condition(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.below(11) {
            8 => {
                let set: Vec<String> = (0..=self.random.below(4)).map(|_| self.constant()).collect();
                format!("{} in ({})", self.closed(depth - 1), set.join(", "))
            }
            9 => {
                const SETS: [&str; 3] =
                    ["\"sh\"", "\"\", \"bash\", \"a\"", "\"sixteen bytes!!!\", \"exactly-15-byte\", \"sh\""];
                format!("comm in ({})", self.random.pick(&SETS))
            }
            10 => {
                let function = self.random.pick(&["starts_with", "ends_with", "contains"]);
                format!(
                    "{function}(comm, \"{}\")",
                    self.random.pick(&["", "sh", "ex", "exactly-15-byte", "s", "ly-15", "tes!!!"])
                )
            }
            0 => {
                let form = self.random.pick(&["#", "!#", "# == 0", "# != task", "!!#"]);
                form.replace('#', &self.pointer(depth - 1))
            }
            1 => {
                let text = self.random.pick(&["", "bash", "exactly-15-byte", "sixteen bytes!!!"]);
                format!("comm {} \"{text}\"", self.random.pick(&["==", "!="]))
            }
            2 => format!("!({})", self.condition(depth - 1)),
            3 | 4 => self.integer(depth - 1),
            _ => {
                let (left, right) = (self.condition(depth - 1), self.condition(depth - 1));
                format!("(({left}) {} ({right}))", self.random.pick(&["&&", "||"]))
            }
        }
    }

    /// A pointer, which needs no parentheses.
    fn pointer(&mut self, depth: u32) -> String {
        if depth > 0 && self.random.below(3) == 0 {
            let condition = self.condition(depth - 1);
            return format!("({condition} ? {} : {})", self.pointer(depth - 1), self.pointer(depth - 1));
        }
        if depth > 0 && self.random.below(4) == 0 {
            let ty = self.random.pick(&["struct task_struct *", "const struct task_struct *"]);
            let pointer = self.pointer(depth - 1);
            return match self.random.below(3) {
                0 => format!("(({ty}){pointer})"),
                1 => format!("(({ty})(u64){pointer})"),
                _ => format!("(({ty})(void *){pointer})"),
            };
        }
        self.binding(true).unwrap_or_else(|| self.random.pick(self.names.pointers).to_owned())
    }

    /// One of the bindings that are pointers, or are not; sometimes none.
    fn binding(&mut self, pointer: bool) -> Option<String> {
        let of_kind: Vec<usize> = (0..self.bound.len()).filter(|n| self.bound[*n] == pointer).collect();
        let some = !of_kind.is_empty() && self.random.below(2) == 0;
        some.then(|| format!("b{}", self.random.pick(&of_kind)))
    }

    fn leaf(&mut self) -> String {
        match self.random.below(8) {
            0 | 1 => self.constant(),
            2 => self.random.pick(self.names.builtins).to_owned(),
            3 => format!("{}.{}", self.pointer(1), self.random.pick(self.names.members)),
            4 | 5 => self.binding(false).unwrap_or_else(|| self.constant()),
            _ => self.random.pick(self.names.numbers).to_owned(),
        }
    }

    fn constant(&mut self) -> String {
        if self.random.below(12) == 0 {
            return self.random.pick(&["SS_CONNECTED", "O_CREAT", "EINVAL", "RPM_INVALID"]).to_owned();
        }
        let value = self.random.number() as u64;
        match self.random.below(4) {
            0 => format!("{value:#x}"),
            1 => format!("0{value:o}"),
            2 => format!("{value:#b}ul"),
            _ => value.to_string(),
        }
    }
}
