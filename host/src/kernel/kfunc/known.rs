//! What is known of kfuncs beforehand: what BTF does not tell, and what people want to be told.
//!
//! It is a table, `known.tsv`: a line for each kfunc, with its flags in each kernel version that was looked at.
//! `script/kfunc-table` writes the flags and the prototypes anew from kernels' own lists; what stands under usage,
//! effect and about was written by people.

use std::fmt;
use std::sync::OnceLock;

const TABLE: &str = include_str!("known.tsv");

/// A kernel's major and minor version.
pub type Version = (u32, u32);

/// The first version that takes every argument for a trusted one where the kfunc does not say otherwise
/// (KF_TRUSTED_ARGS is gone).
const TRUSTED_BY_DEFAULT: Version = (7, 0);

/// What is known of a kfunc, whichever kernel is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub name: &'static str,
    pub usage: Usage,
    /// What it changes beyond the plugin's own values; none where that is nothing.
    pub effect: Option<&'static str>,
    /// What it does, in a line.
    pub about: &'static str,
    /// As C declares it, in the newest version that has it.
    pub prototype: &'static str,
    /// By version, ascending; only those that have it.
    flags: Vec<(Version, Flags)>,
}

/// Whether a plugin may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// In an expression.
    Call,
    /// Not itself: the host calls it where it is needed. Tells what to write instead.
    Host(&'static str),
    /// Not at all, and why.
    No(&'static str),
}

/// Flags of a kfunc (KF_* of include/linux/btf.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$about:meta])* $name:ident = $bit:literal,)*) => {
        /// Each with its word in the table.
        const WORDS: &[(&str, u32)] = &[$((stringify!($name), 1 << $bit)),*];

        impl Flags {
            $($(#[$about])* pub fn $name(self) -> bool { self.0 & 1 << $bit != 0 })*
        }
    };
}

flags! {
    /// Its result is owned by who called, and must be released.
    acquire = 0,
    /// It releases its argument, which is gone then.
    release = 1,
    /// Its result may be null.
    ret_null = 2,
    /// Pointers to structs must be trusted, and not null.
    trusted_args = 4,
    /// It may sleep, so only programs that may sleep can call it.
    sleepable = 5,
    /// It may bring the machine down.
    destructive = 6,
    /// Pointers to structs must be trusted or protected by RCU, and not null.
    rcu = 7,
    /// It begins a walk.
    iter_new = 8,
    /// It gives the next of a walk, or null at its end.
    iter_next = 9,
    /// It ends a walk.
    iter_destroy = 10,
    /// It must be called within an RCU section, and its result is protected by that.
    rcu_protected = 11,
    /// The verifier passes arguments that its prototype in BTF does not have.
    implicit_args = 16,
}

impl Flags {
    /// Those of a kfunc whose result must be released, may be null, or that may sleep, as a plugin says of it.
    pub fn claimed(owned: bool, may_be_null: bool, may_sleep: bool) -> Flags {
        let bits = [(owned, "acquire"), (may_be_null, "ret_null"), (may_sleep, "sleepable")];
        let bit = |word: &str| WORDS.iter().find(|(name, _)| *name == word).map_or(0, |(_, bit)| *bit);
        Flags(bits.into_iter().filter(|(is, _)| *is).fold(0, |flags, (_, word)| flags | bit(word)))
    }

    /// The words that [`Flags`] displays as; none where one is none of them.
    pub fn parse(words: &str) -> Option<Flags> {
        let bit = |word: &str| match word {
            "0" => Some(0),
            _ => WORDS.iter().find(|(name, _)| *name == word).map(|(_, bit)| *bit),
        };
        words.split(' ').try_fold(0, |flags, word| Some(flags | bit(word)?)).map(Flags)
    }

    /// The words of those that are set.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        WORDS.iter().filter(move |(_, bit)| self.0 & bit != 0).map(|(name, _)| *name)
    }

    /// What the kernel of that version makes of them.
    fn understood_by(self, version: Version) -> Flags {
        let trusted = version >= TRUSTED_BY_DEFAULT && !self.rcu();
        if trusted { Flags(self.0 | 1 << 4) } else { self }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { f.write_str(&self.words().collect::<Vec<_>>().join(" ")) }
    }
}

/// What is known of the kfunc of that name.
pub fn known(name: &str) -> Option<&'static Known> {
    let all = all_known();
    all.binary_search_by(|known| known.name.cmp(name)).ok().map(|at| &all[at])
}

/// All that are known, by name.
pub fn all_known() -> &'static [Known] {
    static ALL: OnceLock<Vec<Known>> = OnceLock::new();
    // A test goes through every line.
    ALL.get_or_init(|| table().map(|(_, rows)| rows).unwrap_or_default())
}

impl Known {
    /// The first of the versions looked at that has it.
    pub fn since(&self) -> Version {
        self.flags.first().map_or((0, 0), |(version, _)| *version)
    }

    /// Its flags in a kernel of that version: those of the newest version looked at that has it and is not newer;
    /// before all of those, of the first.
    pub fn flags(&self, version: Version) -> Flags {
        let not_newer = self.flags.iter().rev().find(|(at, _)| *at <= version);
        let (at, flags) = *not_newer.or(self.flags.first()).unwrap_or(&(version, Flags::default()));
        flags.understood_by(at.max(version))
    }

    /// Whether a kernel of that version may have it: one that was looked at either does or does not.
    pub fn may_be_in(&self, version: Version) -> bool {
        !versions().contains(&version) || self.flags.iter().any(|(at, _)| *at == version)
    }
}

/// The versions looked at, ascending.
pub fn versions() -> &'static [Version] {
    static VERSIONS: OnceLock<Vec<Version>> = OnceLock::new();
    VERSIONS.get_or_init(|| table().map(|(versions, _)| versions).unwrap_or_default())
}

pub(super) fn version(text: &str) -> Option<Version> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The versions, and the lines. The error is a line that is none.
fn table() -> Result<(Vec<Version>, Vec<Known>), &'static str> {
    let mut lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let head = lines.next().unwrap_or_default();
    let versions: Vec<Version> = head.split('\t').filter_map(version).collect();
    let rows = lines.map(|line| row(line, &versions).ok_or(line)).collect::<Result<_, _>>()?;
    Ok((versions, rows))
}

/// `name`, the flags in each version, `usage`, `effect`, `about`, `prototype`.
fn row(line: &'static str, versions: &[Version]) -> Option<Known> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let mut flags = Vec::new();
    for version in versions {
        match fields.next()? {
            "-" => {}
            words => flags.push((*version, Flags::parse(words)?)),
        }
    }
    let [usage, effect, about, prototype] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    let usage = match usage.split_once(": ") {
        None if usage == "call" => Usage::Call,
        Some(("host", instead)) => Usage::Host(instead),
        Some(("no", why)) => Usage::No(why),
        _ => return None,
    };
    let effect = (effect != "-").then_some(effect);
    fields.next().is_none().then_some(Known { name, usage, effect, about, prototype, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let (versions, rows) = table().unwrap_or_else(|line| panic!("not a line of the table: {line}"));
        assert_eq!(versions, [(6, 1), (6, 12), (6, 18), (7, 2)]);
        assert!(rows.len() > 340, "{}", rows.len());
        assert!(rows.is_sorted_by(|a, b| a.name < b.name), "sorted, and each once");
        for Known { name, usage, effect, about, prototype, flags } in &rows {
            let sentence =
                |text: &str| text.len() > 8 && !text.ends_with('.') && text.trim() == text && text.is_ascii();
            assert!(!flags.is_empty(), "{name}");
            assert!(sentence(about) && about.len() < 140, "{name}: {about}");
            assert!(prototype.contains(&format!("{name}(")) && prototype.ends_with(')'), "{name}: {prototype}");
            assert!(effect.is_none_or(sentence), "{name}: {effect:?}");
            match usage {
                Usage::Call => {}
                Usage::Host(text) | Usage::No(text) => assert!(sentence(text), "{name}: {text}"),
            }
        }
    }

    /// How a value is owned is the host's to see to, so nothing that ends or begins it is called by plugins.
    #[test]
    fn what_the_host_does_itself_is_not_called() {
        for known in all_known().iter().filter(|known| known.usage == Usage::Call) {
            for (version, flags) in &known.flags {
                let own = flags.release() || flags.iter_new() || flags.iter_next() || flags.iter_destroy();
                assert!(!own && !flags.destructive(), "{} {version:?} {flags}", known.name);
            }
        }
    }

    #[test]
    fn flags_by_version() {
        let flags = |name: &str, version| known(name).unwrap().flags(version).to_string();
        assert_eq!(flags("bpf_task_from_pid", (6, 12)), "acquire ret_null");
        assert_eq!(flags("bpf_task_from_pid", (6, 5)), "acquire ret_null", "before the first that was looked at");
        assert_eq!(flags("bpf_task_from_pid", (7, 2)), "acquire ret_null trusted_args");
        assert_eq!(flags("bpf_task_acquire", (7, 2)), "acquire ret_null rcu");
        assert_eq!(flags("bpf_task_acquire", (9, 1)), "acquire ret_null rcu");
        assert_eq!(flags("bpf_arena_alloc_pages", (6, 12)), "trusted_args sleepable");
        assert_eq!(flags("bpf_arena_alloc_pages", (6, 20)), flags("bpf_arena_alloc_pages", (6, 18)));
        assert!(!known("bpf_arena_alloc_pages").unwrap().flags((7, 2)).sleepable());
        assert_eq!(flags("bpf_strlen", (6, 12)), "0");
        assert_eq!(flags("bpf_get_fsverity_digest", (6, 18)), "trusted_args", "that kernel was built without it");
    }

    #[test]
    fn versions_that_have_one() {
        let since = |name: &str| known(name).unwrap().since();
        assert_eq!(["crash_kexec", "bpf_task_from_pid", "bpf_strlen"].map(since), [(6, 1), (6, 12), (6, 18)]);
        assert_eq!(since("bpf_strcasestr"), (7, 2));
        let task = known("bpf_task_from_pid").unwrap();
        assert_eq!([(6, 1), (6, 6), (6, 12), (8, 0)].map(|v| task.may_be_in(v)), [false, true, true, true]);
        assert!(known("bpf_task_form_pid").is_none());
    }

    #[test]
    fn words() {
        assert_eq!(Flags::parse("acquire ret_null").unwrap().to_string(), "acquire ret_null");
        assert_eq!(Flags::parse("0"), Some(Flags::default()));
        assert_eq!(Flags::parse("acquired"), None);
        let flags = Flags::parse("rcu implicit_args").unwrap();
        assert!(flags.rcu() && flags.implicit_args() && !flags.acquire() && !flags.trusted_args());
    }
}
