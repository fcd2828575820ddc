//! Whether a name in C++'s form can be read in a short time.
//!
//! The problem: what reads such names (cpp_demangle) tries one production of the grammar after the other, and what lies
//! inside one that fails is read anew by the next. A name of 90 bytes with twenty template arguments inside one another
//! takes a second, each more doubles it, and the process that is traced decides what its functions are called.
//!
//! The idea: to tell whether a name has the form that compilers give to nearly all, a look at the next letter or two is
//! enough, never a step back. Only what has it is read. Where all is well formed, the first production that is tried
//! beyond a letter or two is the right one, so nothing is read twice.
//!
//! The invariant: this takes a step for each byte at most, and accepts no more than the grammar does
//! (<https://itanium-cxx-abi.github.io/cxx-abi/abi.html#mangling>). It leaves out what few names have: expressions and
//! `decltype`, and conversions to templates' parameters. Their functions go by the names that the file has.

/// How deep types, names and arguments may be inside one another. What reads the name has a bound of its own, and it is
/// lower.
const MAX_DEPTH: u32 = 128;

/// Operators, without conversions and literals (`li`).
const OPERATORS: &[u8] =
    b"nwnadldapsngaddecoplmimldvrmanoreoaSpLmIdVmLaNoReOlsrslSrSeqneltgtlegentaaooppmmcmpmptclixquss";

/// Whether the name has such a form.
pub fn is_readable(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("_Z") else { return false };
    let mut reader = Reader { rest: rest.as_bytes(), substitutes: 0, depth: 0, converts: false };
    // What compilers add to the names of copies stands behind a dot.
    reader.encoding().is_some() && matches!(reader.rest, [] | [b'.', ..])
}

struct Reader<'a> {
    rest: &'a [u8],
    /// What may stand behind `S` so far.
    substitutes: usize,
    depth: u32,
    /// Inside of the type of a conversion, parameters and arguments of templates are hard to tell apart.
    converts: bool,
}

impl Reader<'_> {
    /// A function with its parameters, a variable, or what belongs to a type.
    fn encoding(&mut self) -> Option<()> {
        self.inside(|reader| {
            match reader.rest {
                [b'T', b'V' | b'T' | b'I' | b'S', ..] => {
                    reader.skip(2);
                    return reader.ty();
                }
                [b'T', b'h', ..] => {
                    reader.skip(2);
                    reader.offset()?;
                    return reader.encoding();
                }
                [b'T', b'v', ..] => {
                    reader.skip(2);
                    reader.offset()?;
                    reader.offset()?;
                    return reader.encoding();
                }
                [b'G', b'V', ..] => {
                    reader.skip(2);
                    return reader.name();
                }
                _ => reader.name()?,
            }
            while !matches!(reader.rest, [] | [b'E' | b'.', ..]) {
                reader.ty()?;
            }
            Some(())
        })
    }

    fn name(&mut self) -> Option<()> {
        self.inside(|reader| match reader.rest {
            [b'N', ..] => reader.nested(),
            [b'Z', ..] => reader.local(),
            [b'S', b't', ..] => {
                reader.skip(2);
                reader.unqualified()?;
                reader.arguments_of_name(1)
            }
            [b'S', ..] => {
                reader.substitution()?;
                matches!(reader.rest, [b'I', ..]).then_some(())?;
                reader.arguments_of_name(0)
            }
            // What has no name is told by what it is inside of.
            [b'U', ..] => None,
            _ => {
                reader.unqualified()?;
                reader.arguments_of_name(1)
            }
        })
    }

    /// Arguments, if the name before is a template's, which then can be substituted.
    fn arguments_of_name(&mut self, substitutes: usize) -> Option<()> {
        if matches!(self.rest, [b'I', ..]) {
            self.substitutes += substitutes;
            self.arguments()?;
        }
        Some(())
    }

    /// `N` qualifiers, parts of a name, `E`.
    fn nested(&mut self) -> Option<()> {
        self.eat(b"N")?;
        self.qualifiers();
        if matches!(self.rest, [b'R' | b'O', ..]) {
            self.skip(1);
        }
        let (mut parts, mut begun, mut arguments) = (0, false, true);
        while !matches!(self.rest, [b'E', ..]) {
            match self.rest {
                [b'S', b't', ..] if !begun => self.skip(2),
                [b'S', ..] if !begun => {
                    self.substitution()?;
                    arguments = false;
                }
                [b'T', ..] if !begun => {
                    self.parameter()?;
                    (parts, arguments) = (parts + 1, false);
                    self.add_unless_last();
                }
                [b'I', ..] if !arguments => {
                    self.arguments()?;
                    (parts, arguments) = (parts + 1, true);
                    self.add_unless_last();
                }
                _ => {
                    self.unqualified()?;
                    (parts, arguments) = (parts + 1, false);
                    self.add_unless_last();
                }
            }
            begun = true;
        }
        self.skip(1);
        (parts > 0).then_some(())
    }

    fn add_unless_last(&mut self) {
        if !matches!(self.rest, [b'E', ..]) {
            self.substitutes += 1;
        }
    }

    /// `Z` function `E`, and what is inside of it.
    fn local(&mut self) -> Option<()> {
        self.eat(b"Z")?;
        self.encoding()?;
        self.eat(b"E")?;
        match self.rest {
            [b's', ..] => self.skip(1),
            [b'd', ..] => {
                self.skip(1);
                self.number();
                self.eat(b"_")?;
                return self.inner();
            }
            _ => self.inner()?,
        }
        self.discriminator()
    }

    /// A name inside of a function.
    fn inner(&mut self) -> Option<()> {
        if matches!(self.rest, [b'U', ..]) { self.unqualified() } else { self.name() }
    }

    fn discriminator(&mut self) -> Option<()> {
        match self.rest {
            [b'_', b'_', ..] => {
                self.skip(2);
                self.number()?;
                self.eat(b"_")
            }
            [b'_', b'0'..=b'9', ..] => {
                self.skip(2);
                Some(())
            }
            _ => Some(()),
        }
    }

    fn unqualified(&mut self) -> Option<()> {
        match self.rest {
            [b'0'..=b'9', ..] => self.source()?,
            [b'L', ..] => {
                self.skip(1);
                self.source()?;
            }
            [b'C', b'1'..=b'3', ..] | [b'D', b'0'..=b'2', ..] => self.skip(2),
            [b'U', b'l', ..] => {
                self.skip(2);
                if self.eat(b"vE").is_none() {
                    self.types()?;
                }
                self.number();
                self.eat(b"_")?;
            }
            [b'U', b't', ..] => {
                self.skip(2);
                self.number();
                self.eat(b"_")?;
            }
            [b'c', b'v', ..] => {
                self.skip(2);
                let before = std::mem::replace(&mut self.converts, true);
                self.ty()?;
                self.converts = before;
            }
            [b'l', b'i', ..] => {
                self.skip(2);
                self.source()?;
            }
            [a, b, ..] if OPERATORS.chunks_exact(2).any(|operator| operator == [*a, *b]) => self.skip(2),
            _ => return None,
        }
        while matches!(self.rest, [b'B', ..]) {
            self.skip(1);
            self.source()?;
        }
        Some(())
    }

    /// A name as it is written, behind its length.
    fn source(&mut self) -> Option<()> {
        let length = self.number()?;
        let (name, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.');
        (length > 0 && name.iter().all(letter)).then_some(())
    }

    fn ty(&mut self) -> Option<()> {
        self.inside(|reader| {
            match reader.rest {
                [b'a'..=b'z', ..] if !matches!(reader.rest[0], b'k' | b'p' | b'q' | b'r' | b'u') => {
                    reader.skip(1);
                    return Some(());
                }
                [b'D', b'n' | b'a' | b'c' | b'i' | b's' | b'u' | b'd' | b'e' | b'f' | b'h', ..] => {
                    reader.skip(2);
                    return Some(());
                }
                [b'r' | b'V' | b'K', ..] => {
                    reader.qualifiers();
                    if matches!(reader.rest, [b'F', ..] | [b'D', b'o', ..]) {
                        reader.function()?;
                    } else {
                        reader.ty()?;
                    }
                }
                // Complex numbers, and not the constructor `C1`.
                [b'C', b'a'..=b'z', ..] | [b'P' | b'R' | b'O', ..] => {
                    reader.skip(1);
                    reader.ty()?;
                }
                [b'F', ..] | [b'D', b'o', ..] => reader.function()?,
                [b'A', b'0'..=b'9' | b'_', ..] => {
                    reader.skip(1);
                    reader.number();
                    reader.eat(b"_")?;
                    reader.ty()?;
                }
                [b'D', b'v', b'0'..=b'9', ..] => {
                    reader.skip(2);
                    reader.number()?;
                    reader.eat(b"_")?;
                    reader.ty()?;
                }
                [b'D', b'p', ..] => {
                    reader.skip(2);
                    reader.ty()?;
                }
                [b'M', ..] => {
                    reader.skip(1);
                    reader.ty()?;
                    reader.ty()?;
                }
                [b'T', ..] => {
                    reader.parameter()?;
                    if matches!(reader.rest, [b'I', ..]) {
                        (!reader.converts).then_some(())?;
                        reader.arguments_of_name(1)?;
                    }
                }
                [b'S', b't', ..] => reader.name()?,
                [b'S', ..] => {
                    reader.substitution()?;
                    if !matches!(reader.rest, [b'I', ..]) {
                        return Some(());
                    }
                    reader.arguments()?;
                }
                [b'0'..=b'9' | b'N' | b'Z', ..] => reader.name()?,
                _ => return None,
            }
            reader.substitutes += 1;
            Some(())
        })
    }

    /// `F`, the types of result and parameters, `E`.
    fn function(&mut self) -> Option<()> {
        if matches!(self.rest, [b'D', b'o', ..]) {
            self.skip(2);
        }
        self.eat(b"F")?;
        self.ty()?;
        while !matches!(self.rest, [b'E', ..] | [b'R' | b'O', b'E', ..]) {
            self.ty()?;
        }
        if !matches!(self.rest, [b'E', ..]) {
            self.skip(1);
        }
        self.eat(b"E")
    }

    /// Types of parameters, of which nothing can be `void`, and `E`.
    fn types(&mut self) -> Option<()> {
        (!matches!(self.rest, [b'v', ..])).then_some(())?;
        self.ty()?;
        while !matches!(self.rest, [b'E', ..]) {
            self.ty()?;
        }
        self.eat(b"E")
    }

    fn arguments(&mut self) -> Option<()> {
        self.eat(b"I")?;
        self.argument()?;
        while !matches!(self.rest, [b'E', ..]) {
            self.argument()?;
        }
        self.eat(b"E")
    }

    fn argument(&mut self) -> Option<()> {
        match self.rest {
            [b'L', ..] => self.literal(),
            // Of expressions only what names a function or a parameter.
            [b'X', b'a', b'd', b'L', ..] => {
                self.skip(3);
                self.literal()?;
                self.eat(b"E")
            }
            [b'X', b'T', ..] => {
                self.skip(1);
                self.parameter()?;
                self.eat(b"E")
            }
            [b'J', ..] => self.inside(|reader| {
                reader.skip(1);
                while !matches!(reader.rest, [b'E', ..]) {
                    reader.argument()?;
                }
                reader.eat(b"E")
            }),
            _ => self.ty(),
        }
    }

    /// `L`, a type and a number, or a name of its own, `E`.
    fn literal(&mut self) -> Option<()> {
        self.eat(b"L")?;
        if matches!(self.rest, [b'_', b'Z', ..]) {
            self.skip(2);
            self.encoding()?;
        } else {
            self.ty()?;
            let digits =
                self.rest.iter().take_while(|byte| byte.is_ascii_hexdigit() && **byte != b'E' || **byte == b'n');
            self.rest = &self.rest[digits.count()..];
        }
        self.eat(b"E")
    }

    /// `T_`, `T0_`, …
    fn parameter(&mut self) -> Option<()> {
        self.eat(b"T")?;
        self.number();
        self.eat(b"_")
    }

    /// `S_`, `S0_`, …, or a name of the standard library's.
    fn substitution(&mut self) -> Option<()> {
        self.eat(b"S")?;
        if matches!(self.rest, [b'a' | b'b' | b's' | b'i' | b'o' | b'd', ..]) {
            self.skip(1);
            return Some(());
        }
        let length = self.rest.iter().position(|byte| *byte == b'_')?;
        let number = match &self.rest[..length] {
            [] => 0,
            [b'0', _, ..] => return None,
            digits if digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'Z')) => {
                1 + usize::from_str_radix(std::str::from_utf8(digits).ok()?, 36).ok()?
            }
            _ => return None,
        };
        self.skip(length + 1);
        (number < self.substitutes).then_some(())
    }

    /// A number that may be negative, and `_`.
    fn offset(&mut self) -> Option<()> {
        if matches!(self.rest, [b'n', ..]) {
            self.skip(1);
        }
        self.number()?;
        self.eat(b"_")
    }

    fn number(&mut self) -> Option<usize> {
        let length = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length > 1 && self.rest[0] == b'0' {
            return None;
        }
        let number = std::str::from_utf8(&self.rest[..length]).ok()?.parse().ok()?;
        self.skip(length);
        Some(number)
    }

    fn qualifiers(&mut self) {
        for qualifier in [b"r", b"V", b"K"] {
            let _ = self.eat(qualifier);
        }
    }

    fn eat(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// One deeper.
    fn inside(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())?;
        read(self)?;
        self.depth -= 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use cpp_demangle::Symbol;

    use super::*;

    /// Of each form one, as compilers have made them.
    const NAMES: [&str; 34] = [
        "_Z4mainv",
        "_ZN4shop5Order3addEi",
        "_ZNK4shop5Order3addERKS0_",
        "_ZNKR4shop5Order3addEOS0_",
        "_ZN4shop5OrderC2Ev",
        "_ZN4shop5OrderD0Ev",
        "_ZN4shop5OrdereqERKS0_",
        "_ZN4shop5OrdercvbEv",
        "_ZN4shop5OrdercvNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEEv",
        "_ZNSt6vectorIiSaIiEE9push_backEOi",
        "_ZNSt3mapISsSt6vectorIPKcSaIS2_EESt4lessISsESaISt4pairIKSsS4_EEEixERS8_",
        "_ZSt4moveIRSsEONSt16remove_referenceIT_E4typeEOS2_",
        "_ZStlsISt11char_traitsIcEERSt13basic_ostreamIcT_ES5_PKc",
        "_ZSt11make_sharedI1AJRiS1_EESt10shared_ptrIT_EDpOT0_",
        "_ZN1AIT_Lin5ELb1ELDn0EE1fEv",
        "_Z1fIXadL_Z4mainvEEEvv",
        "_Z1fILZ4mainvEEvv",
        "_Z1fIJidEEvDpT_",
        "_Z1fPFvizE",
        "_Z1fPDoFviE",
        "_Z1fMN4shop5OrderEKFviE",
        "_Z1fRA10_KiPA_d",
        "_Z1fDv4_fDnDiCd",
        "_Z1fI5ArrayEvT_IiE",
        "_ZZ4mainENKUlvE_clEv",
        "_ZZ4mainENKUliRKSsE0_clEiS0_",
        "_ZZN4shop4openEvE5count_0",
        "_ZZ4mainEs",
        "_ZZ4mainvEd0_NKUlvE_clEv",
        "_ZTVN4shop5OrderE",
        "_ZThn16_N4shop5Order4shipEv",
        "_ZTv0_n24_NSt13basic_ostreamIcED1Ev",
        "_ZGVZ4mainE5count",
        "_ZN4shopL5closeB5cxx11Ev.constprop.0.cold",
    ];

    #[test]
    fn forms_of_names_are_known() {
        let left_out = ["_Z1fILZ4mainvEEvv"];
        for name in NAMES {
            assert_eq!(is_readable(name), !left_out.contains(&name), "{name}");
            assert!(left_out.contains(&name) || Symbol::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_takes_long_is_not_read() {
        let nested = |begin: &str, inside: &str, middle: &str, end: &str, behind: &str| {
            format!("{begin}{}{middle}{}{behind}", inside.repeat(28), end.repeat(28))
        };
        for name in [
            nested("_ZN1Acv", "T_I", "i", "E", "Ev"),
            nested("_Z1fIiEvDT", "nw", "", "", ""),
            nested("_Z1fI", "SaI", "", "", ""),
            nested("_Z1fI", "S_I", "i", "E", "EvSZZ_"),
            nested("_Z", "L1AI", "", "", ""),
            nested("_Z1fI", "C1AI", "i", "E", "Ev"),
        ] {
            assert!(!is_readable(&name), "{name}");
        }
        assert!(!is_readable(&format!("_Z1f{}i", "P".repeat(10_000))));
        assert!(is_readable(&format!("_Z1f{}i", "P".repeat(100))));
    }

    /// Names that are changed at random: what is said to be readable is, unless it is too deep, and no time is lost on
    /// it.
    #[test]
    fn what_is_readable_is_read() {
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut readable, mut read) = (0, 0);
        for _ in 0..20_000 {
            let mut name = NAMES[random(NAMES.len())].to_owned();
            for _ in 0..=random(3) {
                let other = NAMES[random(NAMES.len())];
                let from = random(other.len());
                let piece = &other[from..other.len().min(from + 1 + random(8))];
                name.insert_str(random(name.len()), &piece.repeat(1 + random(6)));
            }
            if is_readable(&name) {
                readable += 1;
                read += usize::from(Symbol::new(&name).is_ok());
            }
        }
        assert!(readable > 500 && read * 100 > readable * 95, "{read} of {readable}");
    }
}
