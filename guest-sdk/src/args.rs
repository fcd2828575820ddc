//! The plugin's own command line.

use std::fmt::Display;
use std::str::FromStr;

use crate::text::concat;

/// What stood behind `--` on the command line.
///
/// [`Plugin::declare`](crate::Plugin::declare) takes out what it knows; an argument that is left over ends the run with
/// an error that lists the known ones, so a plugin without a `declare` refuses any argument.
///
/// ```
/// # use porthole_guest::prelude::*;
/// # fn declare(args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
/// if let Some(pid) = args.value::<u32>("--pid")? {
///     declaration.when(&format!("pid == {pid}"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Args {
    words: Vec<String>,
    known: Vec<&'static str>,
}

impl Args {
    /// Of the words as the host passes them.
    pub fn new(words: Vec<String>) -> Args {
        Args { words, known: Vec::new() }
    }

    /// Takes out `NAME VALUE` or `NAME=VALUE`. A value that starts with `--` needs the second form.
    ///
    /// Fails where the value is missing or no `T`, and where the argument stands twice.
    pub fn value<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, String> {
        let value = self.text(name)?;
        if self.text(name)?.is_some() {
            return Err(concat(&[name, " is given twice"]));
        }
        let Some(value) = value else { return Ok(None) };
        value.parse().map(Some).map_err(|e: T::Err| concat(&[name, ": '", &value, "' will not do: ", &e.to_string()]))
    }

    /// Takes out `NAME`; true where it was there.
    pub fn flag(&mut self, name: &'static str) -> bool {
        self.known.push(name);
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes out the words that do not start with `--`. Call it last: until then, values are among them.
    pub fn rest(&mut self) -> Vec<String> {
        let (options, rest) = std::mem::take(&mut self.words).into_iter().partition(|word| word.starts_with("--"));
        self.words = options;
        rest
    }

    /// Fails where an argument is left over. The SDK calls it behind `declare`.
    pub fn finish(&self) -> Result<(), String> {
        let Some(word) = self.words.first() else { return Ok(()) };
        let mut known = self.known.clone();
        known.dedup();
        match known.as_slice() {
            [] => Err(concat(&["unknown argument '", word, "': this plugin takes none"])),
            known => Err(concat(&["unknown argument '", word, "': this plugin knows ", &known.join(", ")])),
        }
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>, String> {
        self.known.push(name);
        let with_value =
            |word: &String| word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        let Some(at) = self.words.iter().position(with_value) else { return Ok(None) };
        let word = self.words.remove(at);
        if let Some((_, value)) = word.split_once('=') {
            return Ok(Some(value.to_owned()));
        }
        match self.words.get(at) {
            Some(value) if !value.starts_with("--") => Ok(Some(self.words.remove(at))),
            _ => Err(concat(&[name, " needs a value"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn values_in_both_forms_flags_and_the_rest() {
        let mut args = args("--pid 7 a --comm=--x --all b");
        assert_eq!(args.value("--pid"), Ok(Some(7u32)));
        assert_eq!(args.value("--comm"), Ok(Some("--x".to_owned())));
        assert_eq!(args.value::<u32>("--uid"), Ok(None));
        assert!(args.flag("--all"));
        assert!(!args.flag("--none"));
        assert_eq!(args.rest(), ["a", "b"]);
        assert_eq!(args.finish(), Ok(()));
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(
            args("--pid x").value::<u32>("--pid"),
            Err("--pid: 'x' will not do: invalid digit found in string".to_owned())
        );
        assert_eq!(args("--pid").value::<u32>("--pid"), Err("--pid needs a value".to_owned()));
        assert_eq!(args("--pid --comm x").value::<u32>("--pid"), Err("--pid needs a value".to_owned()));
        assert_eq!(args("--pid 1 --pid 2").value::<u32>("--pid"), Err("--pid is given twice".to_owned()));
    }

    #[test]
    fn what_is_left_over_is_unknown() {
        assert_eq!(args("--pids 1").finish(), Err("unknown argument '--pids': this plugin takes none".to_owned()));
        let mut args = args("--pids 1");
        assert_eq!(args.value::<u32>("--pid"), Ok(None));
        assert_eq!(args.value::<u32>("--uid"), Ok(None));
        assert_eq!(args.finish(), Err("unknown argument '--pids': this plugin knows --pid, --uid".to_owned()));
    }
}
